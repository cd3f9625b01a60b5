// One function for each port; downlinks both ways.
const uplinks = {
  1: (b) => ({temperature: ((b[0] << 24) >> 16 | b[1]) / 10, humidity: b[2] / 2}),
  2: (b) => ({alarm: b[0] !== 0}),
  3: (b) => ({history: Array.from({length: b.length / 2}, (_, i) => b[2 * i] * 256 + b[2 * i + 1])}),
};
function decodeUplink(input) {
  const decode = uplinks[input.fPort];
  return decode ? {data: decode(input.bytes)} : {errors: [`nothing is sent on port ${input.fPort}`]};
}
function encodeDownlink({data}) {
  if (!Number.isInteger(data.interval) || data.interval < 1 || data.interval > 1440) return {errors: ['interval: 1 to 1440 minutes']};
  return {bytes: [1, data.interval >> 8, data.interval & 0xff], fPort: 100, warnings: data.interval < 5 ? ['drains the battery'] : []};
}
function decodeDownlink({bytes}) { return {data: {interval: bytes[1] << 8 | bytes[2]}}; }
