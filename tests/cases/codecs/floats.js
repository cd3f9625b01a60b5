// IEEE 754 floats by hand, little endian, as codecs do that must run on old engines.
function float32(b, at) {
  var bits = b[at + 3] << 24 | b[at + 2] << 16 | b[at + 1] << 8 | b[at];
  var sign = (bits >>> 31) === 0 ? 1.0 : -1.0, e = bits >>> 23 & 0xff;
  if (e === 0xff) return (bits & 0x7fffff) ? NaN : sign * Infinity;
  var m = (e === 0) ? (bits & 0x7fffff) << 1 : (bits & 0x7fffff) | 0x800000;
  return sign * m * Math.pow(2, e - 150);
}
function decodeUplink(input) {
  return {data: {flow: float32(input.bytes, 0), total: parseFloat(float32(input.bytes, 4).toFixed(2))}};
}
