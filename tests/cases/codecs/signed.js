// Negative numbers in every fashion: sign bit, two's complement, offset; typed arrays, 24 bits.
const s8 = (b) => b << 24 >> 24;
const s24 = (h, m, l) => (h << 24 | m << 16 | l << 8) >> 8;
const magnitude = (w) => (w & 0x8000 ? -1 : 1) * (w & 0x7fff);
function decodeUplink({bytes: [a, b, c, d, e, f, g]}) {
  const words = new Int16Array(new Uint8Array([c, b]).buffer);
  return {data: {s8: s8(a), s16: words[0], s24: s24(d, e, f), magnitude: magnitude(b << 8 | c), offset: g - 40}};
}
