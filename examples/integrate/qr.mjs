// Draws a text as a QR code (ISO/IEC 18004): bytes, correction level L, versions 1 to 20, mask 0.
//
// An application that has a library for QR codes uses that instead.

// For each version: correction bytes a block, and the number of blocks, at level L.
const ECC_BYTES = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28];
const BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8];
const QUIET = 4; // light modules around the code

const range = (length) => Array.from({ length }, (_, index) => index);
const bitsOf = (value, length) => value.toString(2).padStart(length, "0");
const isSet = (value, bit) => ((value >> bit) & 1) === 1;

/** The product in GF(256) with the polynomial 0x11D. */
function gfMultiply(x, y) {
  let product = 0;
  for (let bit = 7; bit >= 0; bit -= 1) {
    product = (product << 1) ^ ((product >> 7) * 0x11d) ^ (((y >> bit) & 1) * x);
  }
  return product;
}

/** The Reed-Solomon remainder of `data`. */
function correction(data, length) {
  const divisor = range(length).map((it) => (it === length - 1 ? 1 : 0));
  let root = 1;
  for (let round = 0; round < length; round += 1) {
    for (let index = 0; index < length; index += 1) {
      divisor[index] = gfMultiply(divisor[index], root) ^ (divisor[index + 1] ?? 0);
    }
    root = gfMultiply(root, 2);
  }
  let rest = range(length).map(() => 0);
  for (const byte of data) {
    const factor = byte ^ rest[0];
    rest = divisor.map((by, index) => (rest[index + 1] ?? 0) ^ gfMultiply(by, factor));
  }
  return rest;
}

/** The rows, which are also the columns, of the centres of alignment patterns. */
function positions(version) {
  if (version === 1) return [];
  const count = Math.floor(version / 7) + 2;
  const gap = Math.floor((version * 4 + count * 2 + 1) / (count * 2 - 2)) * 2;
  return [6, ...range(count - 1).map((it) => version * 4 + 10 - gap * (count - 2 - it))];
}

/** `value` followed by `bits` check bits of a BCH code. */
function withRemainder(value, bits, polynomial) {
  let rest = value;
  for (let round = 0; round < bits; round += 1) {
    rest = (rest << 1) ^ ((rest >> (bits - 1)) * polynomial);
  }
  return (value << bits) | rest;
}

/** The modules that hold no data: rows of true (dark), false (light) and undefined (data). */
function fixedModules(version) {
  const size = version * 4 + 17;
  const rows = range(size).map(() => new Array(size));
  const ring = (row, column, radius, dark) => {
    for (let y = Math.max(row - radius, 0); y <= Math.min(row + radius, size - 1); y += 1) {
      for (let x = Math.max(column - radius, 0); x <= Math.min(column + radius, size - 1); x += 1) {
        rows[y][x] = dark.includes(Math.max(Math.abs(y - row), Math.abs(x - column)));
      }
    }
  };
  for (let it = 0; it < size; it += 1) rows[6][it] = rows[it][6] = it % 2 === 0;
  for (const [row, column] of [[3, 3], [3, size - 4], [size - 4, 3]]) ring(row, column, 4, [0, 1, 3]);
  const centres = positions(version);
  for (const y of centres) {
    for (const x of centres) {
      const isCorner = (y === 6 && x === 6) || (y === 6 && x === size - 7) || (y === size - 7 && x === 6);
      if (!isCorner) ring(y, x, 2, [0, 2]);
    }
  }
  // Level L is 01 and mask 0 is 000.
  const form = withRemainder(0b01000, 10, 0x537) ^ 0x5412;
  for (let bit = 0; bit < 15; bit += 1) {
    rows[bit < 8 ? bit + (bit > 5 ? 1 : 0) : size - 15 + bit][8] = isSet(form, bit);
    rows[8][bit < 8 ? size - 1 - bit : 14 - bit + (bit < 9 ? 1 : 0)] = isSet(form, bit);
  }
  rows[size - 8][8] = true;
  if (version >= 7) {
    const number = withRemainder(version, 12, 0x1f25);
    for (let bit = 0; bit < 18; bit += 1) {
      const [far, near] = [size - 11 + (bit % 3), Math.floor(bit / 3)];
      rows[far][near] = rows[near][far] = isSet(number, bit);
    }
  }
  return rows;
}

/** The bytes of the code: the blocks of data, then those of correction, interleaved. */
function withCorrection(text, version, room) {
  const [blocks, ecc] = [BLOCKS[version - 1], ECC_BYTES[version - 1]];
  let bits = `0100${bitsOf(text.length, version < 10 ? 8 : 16)}`;
  for (const byte of text) bits += bitsOf(byte, 8);
  bits += "0".repeat(Math.min(4, room * 8 - bits.length));
  bits = bits.padEnd(Math.ceil(bits.length / 8) * 8, "0");
  const data = range(bits.length / 8).map((it) => parseInt(bits.slice(it * 8, it * 8 + 8), 2));
  for (let pad = 0; data.length < room; pad += 1) data.push(pad % 2 === 0 ? 0xec : 0x11);
  const short = Math.floor(room / blocks);
  const parts = [];
  for (let number = 0, start = 0; number < blocks; number += 1) {
    const end = start + short + (number >= blocks - (room % blocks) ? 1 : 0);
    parts.push(data.slice(start, end));
    start = end;
  }
  const checks = parts.map((it) => correction(it, ecc));
  const woven = range(short + 1).flatMap((index) => parts.filter((it) => index < it.length).map((it) => it[index]));
  return [...woven, ...range(ecc).flatMap((index) => checks.map((it) => it[index]))];
}

/** The rows of the code; true is dark. */
export function modules(plain) {
  const text = new TextEncoder().encode(plain);
  for (let version = 1; version <= 20; version += 1) {
    const rows = fixedModules(version);
    const free = rows.reduce((sum, row) => sum + range(row.length).filter((it) => row[it] === undefined).length, 0);
    const room = Math.floor(free / 8) - BLOCKS[version - 1] * ECC_BYTES[version - 1];
    if (text.length + (version < 10 ? 2 : 3) <= room) {
      return fill(rows, withCorrection(text, version, room).map((it) => bitsOf(it, 8)).join(""));
    }
  }
  throw new RangeError("the text is too long for a QR code of this program");
}

/** Puts the data into the free modules, in pairs of columns from the right, up and down. */
function fill(rows, bits) {
  const size = rows.length;
  let used = 0;
  for (let right = size - 1; right > 0; right -= right === 8 ? 3 : 2) {
    const upwards = ((right + 1) & 2) === 0;
    for (let step = 0; step < size; step += 1) {
      const row = upwards ? size - 1 - step : step;
      for (const column of [right, right - 1]) {
        if (rows[row][column] !== undefined) continue;
        rows[row][column] = (bits[used] === "1") !== ((row + column) % 2 === 0);
        used += 1;
      }
    }
  }
  return rows;
}

/** The QR code as an <svg> element, black on white. */
export function svg(text) {
  const rows = modules(text);
  const size = rows.length + 2 * QUIET;
  const line = (row, y) => row.map((dark, x) => (dark ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")).join("");
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size} ${size}" width="${size * 5}" role="img" ` +
    `aria-label="QR code"><path fill="#fff" d="M0 0h${size}v${size}H0z"/><path d="${rows.map(line).join("")}"/></svg>`
  );
}
