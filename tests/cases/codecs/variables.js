// Settings of the device, as the network server or the configuration has them.
function decodeUplink(input) {
  const offset = Number(input.variables?.offset ?? 0), unit = (input.variables || {}).unit || 'C';
  const celsius = input.bytes[0] + offset;
  return {data: {temperature: unit === 'F' ? celsius * 9 / 5 + 32 : celsius, unit}};
}
