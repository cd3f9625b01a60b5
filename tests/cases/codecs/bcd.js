// BCD counters and a date of a water meter.
var bcd = function (bytes) {
  return bytes.reduceRight(function (sum, byte) {
    if ((byte & 15) > 9 || (byte >> 4) > 9) throw new Error('not BCD');
    return sum * 100 + (byte >> 4) * 10 + (byte & 15);
  }, 0);
};
function decodeUplink(input) {
  try {
    var b = input.bytes, day = b[4] & 31, month = b[5] & 15, year = 2000 + ((b[5] >> 4) << 3 | b[4] >> 5);
    return {data: {volume: bcd(b.slice(0, 4)) / 1000, due: new Date(Date.UTC(year, month - 1, day)).toISOString().slice(0, 10)}};
  } catch (error) {
    return {errors: [error.message]};
  }
}
