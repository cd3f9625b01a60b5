"""What is pure about BLE: advertisements and characteristics in, values out. No I/O and no clock."""
