// /api/templates: what can be sent, how it looks, and a mail to try it.
import { describe, expect, it } from 'vitest';
import { useHarness } from '../support/harness.ts';
import { until } from '../support/until.ts';
import { expectProblem } from './tools.ts';

const h = useHarness();

describe('GET /api/templates', () => {
  it('lists the shipped templates, each as it stands alone', async () => {
    const { status, body } = await h.api('GET', '/api/templates');
    expect(status).toBe(200);
    const keys = body.templates.map((template: { key: string }) => template.key);
    for (const shipped of [
      'course-newsletter',
      'deadline-reminder',
      'default_template',
      'homework-score-published',
    ]) {
      expect(keys).toContain(shipped);
    }
    for (const template of body.templates) {
      const { body: one } = await h.api('GET', `/api/templates/${template.key}`);
      expect(one.template).toEqual(template);
    }
  });
});

describe('GET /api/templates/{key}', () => {
  it('says category and subject, what the contexts must have, and gives a sample', async () => {
    const { status, body } = await h.api('GET', '/api/templates/homework-score-published');
    expect(status).toBe(200);
    expect(body.template).toMatchObject({
      key: 'homework-score-published',
      category: 'transactional',
      subject: 'Homework 1 in ML Zoomcamp 2026 has been scored',
      sample: { shared_context: { homework_title: 'Homework 1' }, recipient_context: {} },
    });
    expect(body.template.shared_schema).toMatchObject({
      type: 'object',
      required: ['course_title', 'homework_title'],
      additionalProperties: false,
    });
    expect(Object.keys(body.template.recipient_schema.properties).sort()).toEqual([
      'details',
      'max_score',
      'name',
      'score',
      'score_url',
    ]);
    expect(body.template.recipient_schema.required).toEqual([]);
    const newsletter = await h.api('GET', '/api/templates/course-newsletter');
    expect(newsletter.body.template.category).toBe('marketing');
  });

  it('is 404 for one that is not there', async () => {
    for (const key of [
      'none',
      'constructor',
      '__proto__',
      'toString',
      'homework-score-published.tsx',
    ]) {
      for (const [method, path] of [
        ['GET', ''],
        ['POST', '/preview'],
        ['POST', '/test-send'],
      ] as const) {
        const body = method === 'POST' ? { to: 'x@list.example' } : undefined;
        const answer = await h.api(method, `/api/templates/${key}${path}`, body);
        expectProblem(answer, 404, 'not_found', undefined, `${method} ${key}${path}`);
      }
    }
  });
});

describe('POST /api/templates/{key}/preview', () => {
  it('renders each template with its sample', async () => {
    const { body } = await h.api('GET', '/api/templates');
    for (const template of body.templates) {
      const preview = await h.api('POST', `/api/templates/${template.key}/preview`, {});
      expect(preview.status, template.key).toBe(200);
      expect(Object.keys(preview.body).sort()).toEqual(['html', 'subject', 'text']);
      expect(preview.body.subject).toBe(template.subject);
      expect(preview.body.html).toMatch(/^<!DOCTYPE html/i);
      expect(preview.body.text.length).toBeGreaterThan(20);
    }
  });

  it('renders with the given contexts, the sample where one is omitted', async () => {
    const { body } = await h.api('POST', '/api/templates/homework-score-published/preview', {
      shared_context: { course_title: 'SQL & <b>more</b>', homework_title: 'Joins' },
    });
    expect(body.subject).toBe('Joins in SQL & <b>more</b> has been scored');
    expect(body.html).not.toContain('<b>more</b>');
    expect(body.text).toContain('SQL & <b>more</b>');
    expect(body.text).toContain('17.5');
    const personal = await h.api('POST', '/api/templates/homework-score-published/preview', {
      recipient_context: { name: 'Ada', score: 3 },
      shared_context: null,
    });
    expect(personal.body.text).toContain('Ada');
    expect(personal.body.text).not.toContain('17.5');
    expect(personal.body.subject).toContain('ML Zoomcamp 2026');
  });

  it('is 400 for contexts that do not fit, naming every field', async () => {
    const answer = await h.api('POST', '/api/templates/homework-score-published/preview', {
      shared_context: { course_title: 'A', scores_url: 'javascript:alert(1)' },
      recipient_context: { score: 'ten', details: [{ label: 'Q' }, 7], mystery: 1 },
    });
    expectProblem(answer, 400, 'validation_failed', [
      'shared_context.homework_title',
      'shared_context.scores_url',
      'recipient_context.score',
      'recipient_context.details.0.points',
      'recipient_context.details.1',
      'recipient_context.mystery',
    ]);
    // Names that every JavaScript object has are unknown fields like any other.
    for (const name of ['constructor', 'toString', 'hasOwnProperty']) {
      const odd = await h.api('POST', '/api/templates/homework-score-published/preview', {
        recipient_context: { [name]: 1 },
      });
      expectProblem(odd, 400, 'validation_failed', [`recipient_context.${name}`]);
    }
  });

  it('shows any object with the default template', async () => {
    const odd = {
      constructor: 'a',
      toString: 'b',
      hasOwnProperty: { valueOf: null },
      $$typeof: 'react.element',
      '': 'empty key',
      '🎓': ['x', [], {}, [[1]], null, true, -0.5, 1e300],
      control: 'a\u0001b\u001fc\r\nd',
      children: '<script>alert(1)</script>',
    };
    for (const which of ['shared_context', 'recipient_context']) {
      const { status, body } = await h.api('POST', '/api/templates/default_template/preview', {
        [which]: odd,
      });
      expect(status, which).toBe(200);
      expect(body.html).not.toContain('<script>');
      expect(body.text).toContain('empty key');
    }
  });
});

describe('POST /api/templates/{key}/test-send', () => {
  it('mails one address, and can be followed as a message', async () => {
    const { status, headers, body } = await h.api(
      'POST',
      '/api/templates/homework-score-published/test-send',
      { to: 'Tester@List.example', recipient_context: { name: 'Ada', score: 1 } },
    );
    expect(status).toBe(202);
    expect(headers.get('location')).toBe(`/api/messages/${body.message.id}`);
    expect(body.message).toMatchObject({
      kind: 'single',
      template_key: 'homework-score-published',
      state: 'queued',
      recipients: [{ kind: 'to', email: 'Tester@List.example', state: 'queued' }],
    });
    const worker = await h.startWorker();
    await until('the mail to go out', async () => {
      const { body: now } = await h.api('GET', headers.get('location')!);
      return now.message.state === 'sent';
    });
    await worker.stop();
    const mail = await h.sink.mailTo('Tester@list.example');
    expect(mail.subject).toBe('Homework 1 in ML Zoomcamp 2026 has been scored');
    expect(mail.text).toContain('Ada');
    expect(mail.from).toMatchObject({ name: 'Courses', address: 'courses@school.example' });
    expect(h.sink.accepted).toHaveLength(1);
  });

  it('takes a sender, and is 422 for one that is not there', async () => {
    const path = '/api/templates/default_template/test-send';
    const unknown = await h.api('POST', path, { to: 'x@list.example', from_email: 'nobody' });
    expectProblem(unknown, 422, 'sender_not_found');
    await h.api('PUT', '/api/senders/news', { email: 'news@school.example' });
    const { body } = await h.api('POST', path, { to: 'x@list.example', from_email: 'news' });
    const worker = await h.startWorker();
    await until('the mail to go out', async () => {
      const { body: now } = await h.api('GET', `/api/messages/${body.message.id}`);
      return now.message.state === 'sent';
    });
    await worker.stop();
    expect((await h.sink.mailTo('x@list.example')).from?.address).toBe('news@school.example');
    const other = await h.newClient('other');
    expectProblem(
      await other.api('POST', path, { to: 'x@list.example' }),
      422,
      'no_default_sender',
    );
  });

  it('is 400 without an address, or with contexts that do not fit; nothing is queued', async () => {
    const path = '/api/templates/deadline-reminder/test-send';
    expectProblem(await h.api('POST', path, {}), 400, 'validation_failed', ['to']);
    const misfit = await h.api('POST', path, {
      to: 'x@list.example',
      shared_context: { course_title: 'A', task_title: 'B', due_at: 'tomorrow' },
    });
    expectProblem(misfit, 400, 'validation_failed', ['shared_context.due_at']);
    const { rows } = await h.database.pool.query('select count(*)::integer as n from messages');
    expect(rows[0].n).toBe(0);
  });
});
