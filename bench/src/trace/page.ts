import { Stage } from './stage.ts';

/** The parts of docs/trace.md that are recorded, by the names that they have there. */
export function record(): Map<string, readonly string[]> {
  using stage = new Stage();
  const { recorder } = stage;
  const [a, b] = stage.actors;
  const parts = new Map<string, readonly string[]>();
  const part = (name: string, run: () => void) => {
    run();
    parts.set(name, recorder.take());
  };
  part('first peer', () => {
    stage.at(0, () => a.connect());
    stage.at(100, () => a.poll());
  });
  part('handshake', () => stage.at(150, () => b.connect()));
  part('first frame', () => stage.at(200, () => a.send('frame 1')));
  part('answer', () => stage.at(210, () => b.send('frame 2')));
  part('burst', () => stage.at(220, () => a.send('frame 3', 'frame 4', 'frame 5', 'frame 6')));
  part('awake', () =>
    stage.at(230, () => {
      b.send('frame 7');
      b.send('frame 8');
    }),
  );
  part('both', () =>
    stage.at(240, () => {
      a.send('frame 9');
      b.send('frame 10');
    }),
  );
  part('down', () => stage.at(500, () => b.setEnabled(false)));
  part('up', () => stage.at(600, () => b.setEnabled(true)));
  part('poll', () => stage.at(1600, () => a.poll()));
  part('leaving', () => stage.at(1700, () => a.leave()));
  return parts;
}

/** The page with its recorded parts replaced. Throws Error if it has no place for one, or a place for none. */
export function withRecording(page: string, parts = record()): string {
  const left = new Set(parts.keys());
  const made = page.replaceAll(
    /(<!-- recorded: ([\w ]+) -->\n).*?(<!-- end -->)/gs,
    (_whole, before, name, after) => {
      const lines = parts.get(name);
      if (lines === undefined) throw new Error(`docs/trace.md: "${name}" is not recorded`);
      left.delete(name);
      return `${before}\`\`\`\n${lines.join('\n')}\n\`\`\`\n${after}`;
    },
  );
  if (left.size > 0) throw new Error(`docs/trace.md: no place for ${[...left].join(', ')}`);
  return made;
}
