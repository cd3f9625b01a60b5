// A decoder that is a table, evaluated by helpers that are defined after their use.
var LAYOUT = {
  protocol: 2,
  sensors: [
    {length: 2, values: [{name: 'dendrometer', unit: 'mm', convert: function (x) { return x[0] / 1000 * (x[1] / 32768 - 1); }}]},
    {length: 1, values: [{name: 'battery', unit: 'V', convert: function (x) { return x[0] / 1000; }}]},
  ],
};
function decodeUplink(input) { return {data: decode(input.bytes)}; }
function decode(bytes) {
  var words = pairs(bytes), flags = words[1], at = 2, result = {protocol: bytes[0] >> 4};
  if (result.protocol !== LAYOUT.protocol) { throw new Error('protocol ' + result.protocol + " is not " + LAYOUT.protocol); }
  LAYOUT.sensors.forEach(function (sensor, bit) {
    if (!(flags >> bit & 1)) return;
    var x = words.slice(at, at += sensor.length);
    sensor.values.forEach(function (v) { result[v.name] = {value: v.convert(x), unit: v.unit}; });
  });
  return result;
}
function pairs(bytes) { var w = []; for (var i = 0; i < bytes.length; i += 2) w.push(bytes[i] << 8 | bytes[i + 1]); return w; }
