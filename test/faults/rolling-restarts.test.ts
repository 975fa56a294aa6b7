// Ten rolling restarts of two workers during a mailing: nothing lost, doubled or in doubt.
import { it } from 'vitest';
import { useFaultStage } from '../support/fault-stage.ts';
import { expectRestartsUnnoticed } from '../support/rolling-restarts.ts';

const stage = useFaultStage();

it('ten restarts during a send of 2,000', async () => {
  await expectRestartsUnnoticed(stage);
});
