# Everything a newcomer needs. Each target prepares .venv itself, from requirements.lock; nothing is installed outside
# of it, except that `make test` asks Debian for a broker (see .ci/debian-packages).
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
unexport PYTHONPATH PYTHONHOME

BIN := .venv/bin
ARGS ?=

.PHONY: help demo test system-test system-test-ble system-test-usb soak lint bench bench-quick docs schema dist deb bundle sbom lock clean

help: ## this list
	@echo "edged: make TARGET [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r target text; do \
		printf '  %-12s %s\n' "$$target" "$$text"; done

demo: ## the whole road on this machine, with an outage in the middle (ARGS="--for 20s" ends by itself)
	@.ci/venv demo
	@$(BIN)/edged demo $(ARGS)

test: ## all tests, with coverage (ARGS="-k planner" picks some)
	@.ci/venv test
	@.ci/debian-packages
	@.ci/test $(ARGS)

SOAK := tests/system/test_faults.py tests/system/test_endurance.py tests/system/test_power_cut.py tests/unit/buffer/test_crash_points.py \
	tests/wire/ble/test_outages.py tests/fuzz/test_control.py

soak: ## the long fault suite and hostile input, a quarter of an hour, and its page docs/explanation/faults.md
	@.ci/venv test
	@.ci/debian-packages
	@EDGED_SOAK=1 $(BIN)/python -m pytest -n 4 --timing all -rP $(SOAK) $(ARGS)
	@$(BIN)/python -m tests.support.faultpage
	@$(BIN)/python -m tests.fuzz --seconds 10

system-test: ## installs the .deb into a Debian that is booted for it, and tries to break the service (root, a quarter of an hour)
	@.ci/venv test
	@[ "$$(id -u)" != 0 ] || apt-get install -y -qq --no-install-recommends systemd-container dbus e2fsprogs lintian mosquitto mosquitto-clients >/dev/null
	@$(BIN)/python .ci/package.py deb --out .build/deb
	@$(BIN)/python .ci/package.py bundle --out .build/deb
	@EDGED_SYSTEM_TEST=1 $(BIN)/python -m pytest -s -rs tests/system/service $(ARGS)

system-test-usb: ## the .deb with a real kernel, udev and a USB adapter that is pulled out, in a virtual machine (root, the network, ten minutes)
	@.ci/venv test
	@apt-get install -y --no-install-recommends mmdebstrap qemu-system-x86
	@$(BIN)/python .ci/package.py deb --out .build/deb
	@EDGED_USB_VM=1 $(BIN)/python -m pytest -s tests/system/usb_vm $(ARGS)

system-test-ble: ## edged on a real kernel with a real bluetoothd, in a virtual machine (root, the network, ten minutes)
	@.ci/venv test
	@apt-get install -y --no-install-recommends mmdebstrap qemu-system-x86
	@EDGED_BLE_VM=1 $(BIN)/python -m pytest -s tests/system/ble_vm $(ARGS)

lint: ## style, types, import rules, generated files, licences
	@.ci/venv lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python .ci/generate.py --check
	$(BIN)/python .ci/licences.py
	$(BIN)/python .ci/audit.py

bench: ## what it costs on this machine, beside its own limits (ARGS=--page writes docs/explanation/performance.md)
	@.ci/venv test
	@.ci/debian-packages
	@$(BIN)/python -m tests.bench $(ARGS)

bench-quick: ## the same in under two minutes
	@.ci/venv test
	@.ci/debian-packages
	@$(BIN)/python -m tests.bench --quick $(ARGS)

docs: ## write the generated pages and schemas anew
	@.ci/venv run
	@$(BIN)/python .ci/generate.py

schema: docs ## the same

dist: sbom ## the wheel and the source archive, and what they depend on, into dist/
	@.ci/venv test
	@$(BIN)/python -m hatchling build -d dist

deb: ## Debian's package into dist/, for this machine and Python (ARGS="--arch arm64|armhf" for others)
	@.ci/venv test
	@$(BIN)/python .ci/package.py deb $(ARGS)

bundle: ## an archive of wheels with a script that installs them without a network, into dist/ (ARGS as for deb)
	@.ci/venv test
	@$(BIN)/python .ci/package.py bundle $(ARGS)

sbom: ## a bill of materials (CycloneDX) into dist/
	@.ci/venv test
	@$(BIN)/python .ci/sbom.py dist/edged.cdx.json

lock: ## refresh requirements.lock (needs the network)
	@.ci/lock $(ARGS)

clean: ## remove everything that make and the tests have made
	rm -rf .venv .build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache htmlcov
	find adapters edged tests -name __pycache__ -type d -prune -exec rm -rf {} +
