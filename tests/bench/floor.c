/* The floor below which no gateway goes: libmodbus and libmosquitto, and nothing between them.
 *
 *   floor SECONDS BROKER_PORT MODBUS_PORT...
 *
 * Reads 50 holding registers from each port in turn and publishes them as JSON at QoS 1, with at most 20 messages in
 * flight, for so many seconds. Keeps nothing, checks nothing, survives nothing. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <modbus/modbus.h>
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REGISTERS 50
#define WINDOW 20

static int in_flight;

static void acknowledged(struct mosquitto *m, void *user, int mid) {
    (void)m, (void)user, (void)mid;
    in_flight--;
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    double seconds = atof(argv[1]);
    int links = argc - 3;
    modbus_t **link = calloc(links, sizeof *link);
    for (int i = 0; i < links; i++) {
        link[i] = modbus_new_tcp("127.0.0.1", atoi(argv[3 + i]));
        modbus_set_slave(link[i], 1);
        if (modbus_connect(link[i])) return 1;
    }
    mosquitto_lib_init();
    struct mosquitto *broker = mosquitto_new("floor", true, NULL);
    mosquitto_publish_callback_set(broker, acknowledged);
    mosquitto_max_inflight_messages_set(broker, 0);
    if (mosquitto_connect(broker, "127.0.0.1", atoi(argv[2]), 60)) return 1;
    long done = 0;
    double begin = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    while (now(CLOCK_MONOTONIC) - begin < seconds) {
        uint16_t registers[REGISTERS];
        if (modbus_read_registers(link[done % links], 0, REGISTERS, registers) != REGISTERS) return 1;
        char text[16 + 7 * REGISTERS];
        int at = sprintf(text, "{\"values\":[");
        for (int i = 0; i < REGISTERS; i++) at += sprintf(text + at, "%s%u", i ? "," : "", registers[i]);
        at += sprintf(text + at, "]}");
        in_flight++;
        if (mosquitto_publish(broker, NULL, "floor", at, text, 1, false)) return 1;
        done++;
        do {
            if (mosquitto_loop(broker, in_flight >= WINDOW ? 100 : 0, 1)) return 1;
        } while (in_flight >= WINDOW);
    }
    double elapsed = now(CLOCK_MONOTONIC) - begin;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("{\"name\": \"floor\", \"per_second\": %.1f, \"cpu_us\": %.2f}\n", done / elapsed, 1e6 * cpu / (done ? done : 1));
    return 0;
}
