// ES5, bit fields of one status byte, a counter across bytes.
function Bits(value) { this.value = value; }
Bits.prototype.at = function (bit) { return ((this.value >> bit) & 1) === 1; };
Bits.prototype.part = function (low, count) { return (this.value >> low) & ((1 << count) - 1); };

function decodeUplink(input) {
  if (input.fPort !== 2) { return {errors: ['unknown FPort']}; }
  var status = new Bits(input.bytes[0]);
  var data = {open: status.at(0), tamper: status.at(7), level: status.part(1, 3), mode: ['off', 'eco', 'on'][status.part(4, 2)]};
  data.count = (input.bytes[1] << 16 | input.bytes[2] << 8 | input.bytes[3]) >>> 0;
  return {data: data, warnings: data.tamper ? ['tampered with'] : []};
}
