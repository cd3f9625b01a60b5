// Text in a frame: comma-separated numbers, hexadecimal digits, regular expressions.
function decodeUplink(input) {
  var text = decodeURIComponent(input.bytes.map(function (b) { return '%' + ('0' + b.toString(16)).slice(-2); }).join(''));
  var match = /^T=(-?\d+(?:\.\d+)?)(?:,U=(?<volts>\d+))?(?:,ID=([0-9a-f]+))?$/i.exec(text);
  if (!match) return {errors: ['unreadable: ' + text]};
  return {data: {temperature: Number(match[1]), voltage: match.groups.volts ? parseInt(match.groups.volts, 10) / 10 : undefined,
                 id: match[3] ? parseInt(match[3], 16) : undefined}};
}
