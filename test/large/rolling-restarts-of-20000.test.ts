// Ten rolling restarts of two workers during a send of 20,000.
import { it } from 'vitest';
import { useFaultStage } from '../support/fault-stage.ts';
import { expectRestartsUnnoticed } from '../support/rolling-restarts.ts';

const stage = useFaultStage({ members: 20_000 });

it('ten restarts during a send of 20,000', async () => {
  await expectRestartsUnnoticed(stage);
});
