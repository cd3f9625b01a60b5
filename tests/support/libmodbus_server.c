/* An independent Modbus TCP server for the tests, on libmodbus.
 *
 * Every register holds its own address (modulo 65536), every coil the parity of its address, until written.
 * Usage: libmodbus_server UNITS... ; prints the port it listens on, serves until its standard input closes.
 * Requests for other units are left unanswered. Holding registers from 60000 on do not exist.
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#define REGISTERS 60000

static modbus_mapping_t *make_map(void) {
    modbus_mapping_t *map = modbus_mapping_new(REGISTERS, REGISTERS, REGISTERS, REGISTERS);
    if (!map) return NULL;
    for (int i = 0; i < REGISTERS; i++) {
        map->tab_registers[i] = map->tab_input_registers[i] = (uint16_t)i;
        map->tab_bits[i] = map->tab_input_bits[i] = (uint8_t)(i % 2);
    }
    return map;
}

int main(int argc, char **argv) {
    modbus_mapping_t *maps[256] = {0};
    for (int i = 1; i < argc; i++) {
        int unit = atoi(argv[i]);
        if (unit < 0 || unit > 255 || !(maps[unit] = make_map())) return 2;
    }
    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (!context || listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, 16) ||
        getsockname(listener, (struct sockaddr *)&address, &length)) {
        perror("libmodbus_server");
        return 3;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    fd_set open_set;
    FD_ZERO(&open_set);
    FD_SET(STDIN_FILENO, &open_set);
    FD_SET(listener, &open_set);
    int highest = listener;
    for (;;) {
        fd_set ready = open_set;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0 && errno != EINTR) return 4;
        for (int fd = 0; fd <= highest; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (fd == STDIN_FILENO) {
                char byte;
                if (read(fd, &byte, 1) <= 0) return 0;
            } else if (fd == listener) {
                int client = accept(listener, NULL, NULL);
                if (client >= 0) {
                    FD_SET(client, &open_set);
                    if (client > highest) highest = client;
                }
            } else {
                uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
                modbus_set_socket(context, fd);
                int size = modbus_receive(context, query);
                if (size > 0 && maps[query[6]])
                    modbus_reply(context, query, size, maps[query[6]]);
                else if (size < 0) {
                    close(fd);
                    FD_CLR(fd, &open_set);
                }
            }
        }
    }
}
