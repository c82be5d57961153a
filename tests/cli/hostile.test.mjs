/** Names out of images, and of files, in all that the command and the library give: text, JSON, errors, the log. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import test from 'node:test';
import { compactLines, inspectLines } from '../../cli/reports.js';
import { visible } from '../../cli/text.js';
import { BytesSource, MemorySink, compact, inspect, open } from '../../lib/index.node.js';
import { json } from '../../lib/text.js';
import { vhdCompactor } from '../support/command.mjs';
import { DECEIVES, diskWithPartition, hostileNames } from '../support/hostile-names.mjs';
import { scratchFolder } from '../support/scratch.mjs';
import { dynamicVhd } from '../support/vhd.mjs';

const path = scratchFolder();
const id = 'aa'.repeat(16);

/** An image of that name whose parent, which is not there, has that name. @param {string} name */
const orphan = (name) =>
  new BytesSource(name, dynamicVhd({ blocks: 4, stored: { 0: 1, 2: 0 }, id, parent: { id: 'bb'.repeat(16), name } }));

/** As text of WebAssembly, which has no halves of characters. @param {string} text */
const wellFormed = (text) => Buffer.from(text).toString();

/** What a file of Linux can be called. @param {string} name */
const canBeFile = (name) => !/[/\0\p{Cs}]|^\.*$/u.test(name) && Buffer.byteLength(name) <= 255;

for (const [what, name] of Object.entries(hostileNames)) {
  test(`${what}: reports as text and as JSON`, async () => {
    const disk = await inspect(new BytesSource(name, diskWithPartition(name)));
    const [volume] = disk.volumes;
    const child = await inspect(orphan(name));
    assert.ok(volume && child.parent);
    // Names are given as they are (what is half a character cannot be), and shown so that they do nothing.
    const given = wellFormed(name).split('\0')[0];
    assert.equal(disk.file, wellFormed(name));
    if (given.length <= 36) assert.equal(volume.name ?? '', given);
    assert.ok(given === '' || child.parent.paths.some((seen) => seen === given || seen.length >= 250), what);
    for (const report of [disk, child]) {
      const lines = inspectLines(report).map(visible);
      assert.doesNotMatch(lines.join('\n'), DECEIVES);
      for (const line of lines) assert.doesNotMatch(line, /\n/);
      const text = json(report);
      assert.doesNotMatch(text, DECEIVES);
      assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(report)));
    }
  });

  test(`${what}: the log, errors, and the report of a compaction`, async () => {
    const sink = new MemorySink();
    const source = new BytesSource(name, dynamicVhd({ blocks: 4, stored: { 0: 1, 2: 0 }, id }));
    const job = await compact(source, sink);
    const report = await job.result;
    assert.equal(report.input, name);
    assert.doesNotMatch([...compactLines(report).map(visible), json(report), json(job.log)].join('\n'), DECEIVES);

    // A parent of that name that is none: the name is in the message.
    const stranger = new BytesSource(name, diskWithPartition(name));
    const error = await open(orphan('base.vhd'), { parents: [stranger] }).then(
      () => assert.fail('a stranger was taken for a parent'),
      (/** @type {Error & { code: string }} */ thrown) => thrown,
    );
    assert.notEqual(error.code, 'internal');
    assert.doesNotMatch(`${visible(error.message)}\n${json(error.message)}`, DECEIVES);
  });

  if (!canBeFile(name)) continue;
  test(`${what}: a terminal`, () => {
    const image = path(name);
    writeFileSync(image, dynamicVhd({ blocks: 4, stored: { 0: 1 }, id, parent: { id: 'bb'.repeat(16), name } }));
    const shown = vhdCompactor(['inspect', image]);
    assert.equal(shown.status, 0);
    // Onto itself, which is refused with its name.
    const failed = vhdCompactor(['compact', image, image]);
    assert.equal(failed.status, 1);
    assert.doesNotMatch(shown.stdout + shown.stderr + failed.stdout + failed.stderr, DECEIVES);
    assert.equal(failed.stderr.trimEnd().split('\n').length, 1, 'a name makes no line of its own');
  });
}
