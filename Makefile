# Two commands on a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
CORE := $(wildcard csrc/*.cpp csrc/*.hpp csrc/isa/* csrc/isa/*/*) CMakeLists.txt pyproject.toml constraints.txt
SANITIZED := build/sanitized

MODULES := build/modules.txt

.PHONY: FORCE demo test check core-test sanitize bench docs clean

demo: $(STAMP)
	$(BIN)/bisparse demo

# Everything that CI runs, ending with pytest's own summary.
test: check core-test
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

core-test: $(STAMP)
	$(BIN)/cmake -S . -B build/core -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DBISPARSE_PYTHON=OFF \
	    -DBISPARSE_TESTS=ON -DBISPARSE_WERROR=ON
	$(BIN)/cmake --build build/core
	build/core/core_tests
	build/core/packed_tests
	build/core/sparse_tests

# The same C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(STAMP)
	$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DBISPARSE_PYTHON=OFF \
	    -DBISPARSE_TESTS=ON -DBISPARSE_WERROR=ON -DBISPARSE_SANITIZE=address,undefined
	$(BIN)/cmake --build $(SANITIZED)
	$(SANITIZED)/core_tests
	$(SANITIZED)/packed_tests
	$(SANITIZED)/sparse_tests

bench: $(STAMP)
	$(BIN)/python benchmarks/masks.py

# The documentation is Markdown whose code runs: this checks every page.
docs: $(STAMP)
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf build $(VENV)

# An editable install knows the modules by name, so it is renewed when their list changes.
$(MODULES): FORCE
	@mkdir -p build; find src -name '*.py' | sort | cmp -s - $@ || find src -name '*.py' | sort > $@

$(STAMP): $(CORE) $(MODULES)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch scikit-build-core nanobind cmake ninja
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation \
	    -C cmake.define.BISPARSE_WERROR=ON -e ".[flow,demo,train,transformers,lightning,tensorboard,datasets,onnx]"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
	    hypothesis mypy psutil pytest pytest-timeout ruff scipy triton types-PyYAML
	touch $@
