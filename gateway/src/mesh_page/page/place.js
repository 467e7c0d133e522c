// Where hosts and nodes are drawn: decided from what there is and how wide it may be.

export const BOX = { width: 236, pad: 10, head: 30, row: 26, gap: 5 };
/** Nodes shown of a host: all that there is room for, fewer where the drawing would be long, none at last. */
const ROWS = [10, 6, 4, 2, 0];
const MOST_HOSTS = 48;

/** Where hosts and nodes are drawn: this host first, the others in columns beside it, or below. */
export function place(view, width) {
  const narrow = width < 640;
  const closest = narrow ? 20 : 70;
  const room = Math.max(1, Math.floor((narrow ? width + closest : width - BOX.width) / (BOX.width + closest)));
  const tall = narrow ? 1100 : 760;
  let plan;
  for (const rows of ROWS) {
    for (let columns = 1; columns <= room; columns += 1) {
      const across = narrow ? closest : Math.max(closest, Math.min(170, (width - BOX.width) / columns - BOX.width));
      plan = stack(view, { width, narrow, across, rows, columns });
      if (plan.height <= tall) return plan;
    }
  }
  return plan;
}

function stack(view, { width, narrow, across, rows, columns }) {
  const down = narrow ? 30 : rows ? 22 : 12;
  const boxes = view.hosts.slice(0, MOST_HOSTS).map((host) => {
    const shown = host.nodes.slice(0, rows);
    const more = rows ? host.nodes.length - shown.length + host.omitted : 0;
    const lines = rows ? Math.max(1, shown.length + (more > 0 ? 1 : 0)) : 0;
    const height = lines ? BOX.head + lines * (BOX.row + BOX.gap) + BOX.pad - BOX.gap + 2 : BOX.head + 2;
    return { host, shown, more, folded: !rows, width: BOX.width, height };
  });
  const [first, ...others] = boxes;
  const stacks = Array.from({ length: Math.min(columns, others.length) }, () => ({ boxes: [], height: 0 }));
  // One column after the other, so that the order is seen.
  const fair = others.reduce((sum, box) => sum + box.height + down, 0) / Math.max(1, stacks.length);
  let column = 0;
  for (const box of others) {
    if (stacks[column].height + box.height / 2 > fair && column + 1 < stacks.length) column += 1;
    stacks[column].boxes.push(box);
    stacks[column].height += box.height + down;
  }
  const tallest = Math.max(0, ...stacks.map((stack) => stack.height - down));
  const count = stacks.length;
  if (narrow) {
    const total = Math.max(1, count) * BOX.width + Math.max(0, count - 1) * across;
    first.x = (total - BOX.width) / 2;
    first.y = 0;
    stacks.forEach((stack, index) => settle(stack, index * (BOX.width + across), first.height + down, down));
    return { boxes, narrow, width: Math.max(total, Math.min(width, 330)), height: first.height + (count ? down + tallest : 0) };
  }
  const total = BOX.width + count * (BOX.width + across);
  // Use the room that there is: the columns move apart.
  const spread = count ? Math.min(160, (width - total) / count) : 0;
  const step = BOX.width + across + Math.max(0, spread);
  const height = Math.max(first.height, tallest);
  first.x = 0;
  first.y = (height - first.height) / 2;
  stacks.forEach((stack, index) => settle(stack, (index + 1) * step, (height - (stack.height - down)) / 2, down));
  return { boxes, narrow, width: Math.max(width, count * step + BOX.width), height };
}

function settle(stack, x, y, down) {
  for (const box of stack.boxes) {
    box.x = x;
    box.y = y;
    y += box.height + down;
  }
}
