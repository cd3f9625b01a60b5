// Cayenne Low Power Payload, as LoRaWAN nodes with common libraries send it.
// Source: myDevices, "Cayenne LPP" (types are the IPSO object numbers less 3200), with the additions of the library
// ElectronicCats/CayenneLPP. Each value is named by its kind and its channel, such as temperature_1.
'use strict';

var KINDS = {
  0: ['digital_in', 1, false, 1], 1: ['digital_out', 1, false, 1],
  2: ['analog_in', 2, true, 100], 3: ['analog_out', 2, true, 100],
  100: ['generic', 4, false, 1], 101: ['illuminance', 2, false, 1], 102: ['presence', 1, false, 1],
  103: ['temperature', 2, true, 10], 104: ['humidity', 1, false, 2],
  113: ['acceleration', 6, true, 1000, ['x', 'y', 'z']], 115: ['pressure', 2, false, 10],
  116: ['voltage', 2, false, 100], 117: ['current', 2, false, 1000], 118: ['frequency', 4, false, 1],
  120: ['percentage', 1, false, 1], 121: ['altitude', 2, true, 1], 125: ['concentration', 2, false, 1],
  128: ['power', 2, false, 1], 130: ['distance', 4, false, 1000], 131: ['energy', 4, false, 1000],
  132: ['direction', 2, false, 1], 133: ['time', 4, false, 1], 134: ['gyrometer', 6, true, 100, ['x', 'y', 'z']],
  142: ['switch', 1, false, 1],
};

function number(bytes, at, size, signed) {
  var value = 0;
  for (var i = 0; i < size; i++) value = value * 256 + bytes[at + i];
  return signed && bytes[at] > 127 ? value - Math.pow(256, size) : value;
}

function decodeUplink(input) {
  var bytes = input.bytes, data = {}, at = 0;
  while (at < bytes.length) {
    if (at + 2 > bytes.length) return {errors: ['the frame ends within a value']};
    var channel = bytes[at], type = bytes[at + 1], kind = KINDS[type];
    at += 2;
    if (type === 136) { // position: 3 bytes each, 1/10000 degree and 1/100 m
      if (at + 9 > bytes.length) return {errors: ['the frame ends within a value']};
      data['gps_' + channel] = {
        latitude: number(bytes, at, 3, true) / 10000,
        longitude: number(bytes, at + 3, 3, true) / 10000,
        altitude: number(bytes, at + 6, 3, true) / 100,
      };
      at += 9;
      continue;
    }
    if (!kind) return {errors: ['unknown type ' + type + ' of channel ' + channel]};
    var size = kind[1], parts = kind[4];
    if (at + size > bytes.length) return {errors: ['the frame ends within a value']};
    if (parts) {
      var vector = {};
      for (var i = 0; i < parts.length; i++) {
        vector[parts[i]] = number(bytes, at + i * size / parts.length, size / parts.length, kind[2]) / kind[3];
      }
      data[kind[0] + '_' + channel] = vector;
    } else {
      data[kind[0] + '_' + channel] = number(bytes, at, size, kind[2]) / kind[3];
    }
    at += size;
  }
  return {data: data};
}

function encodeDownlink(input) {
  var bytes = [], errors = [];
  Object.keys(input.data).forEach(function (name) {
    var match = /^(digital_out|analog_out|switch)_(\d+)$/.exec(name), value = input.data[name];
    if (!match || Number(match[2]) > 255) {
      errors.push(name + ' cannot be written: digital_out_N, analog_out_N and switch_N can');
    } else if (match[1] === 'analog_out') {
      var raw = Math.round(value * 100);
      if (raw < -32768 || raw > 32767) errors.push(name + ' must lie between -327.68 and 327.67');
      bytes.push(Number(match[2]), 3, (raw >> 8) & 255, raw & 255);
    } else {
      bytes.push(Number(match[2]), match[1] === 'switch' ? 142 : 1, value ? 1 : 0);
    }
  });
  return errors.length ? {errors: errors} : {bytes: bytes, fPort: 1};
}

function decodeDownlink(input) {
  return decodeUplink(input);
}
