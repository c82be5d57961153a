/** A reporter for node:test: one JSON line for each test (suites only group them). */

/** @typedef {{ name: string, skip?: string | boolean, todo?: string | boolean, details: { type?: string } }} TestData */

/** @param {AsyncIterable<{ type: string, data: TestData }>} events */
export default async function* (events) {
  for await (const { type, data } of events) {
    if ((type !== 'test:pass' && type !== 'test:fail') || data.details.type === 'suite') continue;
    const aside = data.skip ?? data.todo;
    const outcome = aside !== undefined ? 'skipped' : type === 'test:pass' ? 'passed' : 'failed';
    const why = typeof aside === 'string' && aside ? aside : 'no reason given';
    yield `${JSON.stringify({ name: data.name, outcome, why })}\n`;
  }
}
