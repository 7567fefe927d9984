# make demo | make test | make lint | make docs      Settings: PYTHON=python3.12 VENV=.venv TESTS="-k labels"
PYTHON ?= python3
VENV ?= .venv
TESTS ?=
DEMO ?=

.PHONY: help demo test lint docs notebooks
.SILENT:

help:
	echo "make demo   installs; maps a scene in a minute with a network that comes trained; then trains one, evaluates, maps"
	echo "            and reports on examples/   (again from the start: make demo DEMO=--fresh)"
	echo "make test   installs the test extras and runs every test                 (some: make test TESTS='-k labels')"
	echo "make lint   installs the dev extras; ruff, pyright and import-linter"
	echo "make docs   builds the site into build/site and checks its links; open build/site/index.html"

demo: $(VENV)/.installed-all
	"$(VENV)/bin/pixelwise" demo --quick $(DEMO)
	echo
	echo "That network came trained. Now the whole job, training included; it takes some minutes."
	"$(VENV)/bin/pixelwise" demo $(DEMO)

test: $(VENV)/.installed-test
	"$(VENV)/bin/python" -m pytest $(TESTS)

lint: $(VENV)/.installed-dev
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/pyright" --pythonpath "$(VENV)/bin/python"
	"$(VENV)/bin/lint-imports"

# mkdocs-material says in many lines that it will be followed by another program; it is maintained until May 2027.
docs: $(VENV)/.installed-dev
	"$(VENV)/bin/python" website/notebooks.py --check
	NO_MKDOCS_2_WARNING=1 "$(VENV)/bin/mkdocs" build --strict --quiet
	echo "The site is in build/site. Open build/site/index.html"

notebooks: $(VENV)/.installed-dev
	"$(VENV)/bin/python" website/notebooks.py

# A stamp newer than both files means that pip is not needed, nor a network. dev holds test, and test holds all.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "pixelwise needs Python 3.11 or later, and $(PYTHON) is missing or older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	if [ -e "$(VENV)/.unfinished" ] || [ ! -e "$(VENV)" ]; then \
	    echo "Making $(VENV) and installing into it; this happens once and takes some minutes."; \
	    rm -rf "$(VENV)" && mkdir -p "$(VENV)" && touch "$(VENV)/.unfinished" && "$(PYTHON)" -m venv "$(VENV)" || { \
	        echo "The environment could not be made. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	fi
	"$(VENV)/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	# timm needs torchvision for data sets alone, and torchvision's wheels need a GPU build of torch.
	case $* in dev|test) "$(VENV)/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt --no-deps timm;; esac
	case $* in dev) touch "$(VENV)/.installed-test" "$(VENV)/.installed-all";; test) touch "$(VENV)/.installed-all";; esac
	rm -f "$(VENV)/.unfinished"
	touch $@
