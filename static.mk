# Builds a static program of one C file, PROGRAM.c, as small as it gets:
# make -C <its folder> OUT=<path>
CC ?= cc
OUT ?= $(PROGRAM)
PROGRAM_CFLAGS = -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Os -static -no-pie -fno-pie -fno-asynchronous-unwind-tables
PROGRAM_LDFLAGS = -s -Wl,--gc-sections -Wl,-z,noseparate-code -Wl,-z,norelro -Wl,--build-id=none

$(OUT): $(PROGRAM).c Makefile ../static.mk
	mkdir -p $(dir $(OUT))
	$(CC) $(PROGRAM_CFLAGS) -o $(OUT).tmp $(PROGRAM).c $(PROGRAM_LDFLAGS)
	mv $(OUT).tmp $(OUT)

.PHONY: clean
clean:
	rm -f $(PROGRAM) $(PROGRAM).tmp
