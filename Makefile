# `make` alone lists the recipes. Needs a POSIX shell and Python 3.11 or newer; everything else is installed into .venv and .venv-dev.
.DEFAULT_GOAL := help
.PHONY: help serve dev environments test attack peers bench check api check-cuda check-image format image models

# A module is compiled once and read from then on, whatever the shell says: importing torch and all of training takes twice as long
# without, and the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

# gpu where an NVIDIA driver answers, else cpu: the extra of pyproject.toml that brings ONNX Runtime. `make serve ENGINE=cpu` decides otherwise.
ifndef ENGINE
ENGINE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
endif

define MAKE_VENV
@python= ; \
for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3); do \
	if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
done; \
if [ -z "$$python" ]; then \
	echo "No Python 3.11 or newer with its venv module was found (tried: $(or $(PYTHON),python3.11 to python3.14 and python3))." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	exit 1; \
fi; \
"$$python" -m venv $(2) $(1)
endef

define INSTALL
@echo "Installing $(2) into $(1) ($(ENGINE)), once: $(3) ..."; \
$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(5) --constraint constraints.txt --editable '.[$(4)]' && \
touch $@
endef

# .venv starts from nothing at every change, so it never holds more than serving needs.
.venv/.installed-$(ENGINE): pyproject.toml constraints.txt
	$(call MAKE_VENV,.venv,--clear)
	$(call INSTALL,.venv,what serving needs,about half a minute,$(ENGINE))

# torch's wheel for Linux brings CUDA along, GPU or not: most of the 6 GB of .venv-dev, which two processes fetch and unpack first.
# What they fail to bring, the installation of everything brings.
LARGE := torch triton $(addprefix nvidia-,cudnn-cu13 cublas cufft cusolver cusparselt-cu13 nccl-cu13 nvshmem-cu13 cusparse)

# .venv-dev is brought up to date in place, except where it holds the other engine: the two overwrite each other's files.
# --no-compile: most of its 6 GB is never imported; what is imported gets compiled then.
.venv-dev/.installed-$(ENGINE): pyproject.toml constraints.txt | .venv-dev/.made-$(ENGINE)
	@echo "Fetching and unpacking torch, with what it brings along, for .venv-dev ..."
	@[ "$$(uname -s)" != Linux ] || printf '%s\n' $(LARGE) | xargs -n 1 -P 2 .venv-dev/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-compile --no-deps --constraint constraints.txt 2> /dev/null || true
	$(call INSTALL,.venv-dev,everything,several minutes and about 6 GB,$(ENGINE)$(comma)training$(comma)dev,--no-compile)

.venv-dev/.made-$(ENGINE):
	$(call MAKE_VENV,.venv-dev,$(if $(filter-out .venv-dev/.installed-$(ENGINE),$(wildcard .venv-dev/.installed-*)),--clear))
	@touch $@

comma := ,

help:  ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

serve: .venv/.installed-$(ENGINE)  ## start the service on 127.0.0.1:8000 with the models in models/ (PORT=8123 moves it)
	@$(if $(PORT),TAG2MASK_PORT=$(PORT)) exec .venv/bin/python -m app

dev: .venv-dev/.installed-$(ENGINE)  ## install what training and the tests need into .venv-dev (several minutes, 6 GB)

# Packages whose requirements fight those of the service or of each other have an environment each, which holds what tests/environments/NAME.txt
# lists and sees .venv-dev behind it. Where one cannot be installed, its tests are skipped, counted and named. The longest tests come first.
ENVIRONMENTS := cluster fiftyone crf attack openapi-client label-studio kubernetes traces

.PRECIOUS: .venv-%/.installed
# pip is all that is wanted of .venv-dev, so that these are installed beside it (`make --jobs 2 dev environments`).
.venv-%/.installed: tests/environments/%.txt .venv-dev/.made-$(ENGINE)
	@echo "Installing $* into .venv-$*, once ..."
	@rm -rf .venv-$* && .venv-dev/bin/python -m venv --without-pip .venv-$*
	@cd .venv-$*/lib/python*/site-packages && ls -d $(CURDIR)/.venv-dev/lib/python*/site-packages > behind.pth
	@.venv-dev/bin/python -m pip --python .venv-$* install --quiet --disable-pip-version-check --no-compile --no-deps --requirement $< \
		|| echo "$* could not be installed; its tests are skipped." >&2
	@touch $@

environments: $(ENVIRONMENTS:%=.venv-%/.installed)  ## install what some tests need besides, as `make test` does where it is missing

# tests/conftest.py says how many processes there are, and shares the tests out; each has one thread. The
# environments' tests are few and run in one process each, so two environments run at a time, or one and a recipe of BESIDE.
# Status 5 of pytest: ARGS chose none of these tests.
test: .venv-dev/.installed-$(ENGINE)  ## run all tests (ARGS="-k cat" chooses)
	@export OMP_NUM_THREADS=1; failed=0; rm -f .skipped; \
	$(MAKE) --no-print-directory --keep-going --jobs 2 --output-sync=target $(BESIDE) $(ENVIRONMENTS:%=test-%) || failed=1; \
	.venv-dev/bin/python -m pytest --numprocesses auto --skipped-to .skipped $(ARGS) || [ $$? -eq 5 ] || failed=1; \
	if [ -s .skipped ]; then printf '\nSkipped in all environments:\n'; cat .skipped; else echo "No test was skipped."; fi; \
	exit $$failed

# Hypothesis, which `attack` alone needs there, is imported by its plugin at the end of a run: Python 3.11 failed to compile it after Ray.
test-%: .venv-%/.installed .venv-dev/.installed-$(ENGINE)
	@echo "Tests of the environment $*:"
	@.venv-$*/bin/python -m pytest --quiet --environment $* $(if $(filter-out attack,$*),-p no:hypothesispytest) --skipped-to .skipped $(ARGS) || [ $$? -eq 5 ]

attack: .venv-dev/.installed-$(ENGINE)  ## try on a service of its own what once broke it: promise, tried, held, figure
	@.venv-dev/bin/python -m tests.attack

peers: .venv-peers/.installed  ## install whom `make bench` measures besides: LitServe, BentoML, Ray Serve, pytorch-grad-cam, torch-cam

bench: .venv-dev/.installed-$(ENGINE)  ## measure the service beside a bare loop and peers: docs/performance.md (ARGS="--rounds 3")
	@OPENBLAS_NUM_THREADS=1 .venv-dev/bin/python -m benchmarks $(ARGS)

check: .venv-dev/.installed-$(ENGINE)  ## format, lint, types and import rules
	.venv-dev/bin/python -m ruff format --check --quiet .
	.venv-dev/bin/python -m ruff check --quiet .
	.venv-dev/bin/python -m mypy --no-error-summary
	.venv-dev/bin/python -m pytest --quiet tests/test_architecture.py

check-cuda: .venv-dev/.installed-$(ENGINE)  ## compare CUDA with the CPU: maps, contract, /segment (ends with 2 where there is no CUDA)
	@PYTHONPATH=. .venv-dev/bin/python tests/contract/check_cuda.py

format: .venv-dev/.installed-$(ENGINE)  ## rewrite the code in the house format
	@.venv-dev/bin/python -m ruff check --quiet --fix-only .
	@.venv-dev/bin/python -m ruff format .

api: .venv-dev/.installed-$(ENGINE)  ## write docs/api.md and docs/settings.md from the code
	@.venv-dev/bin/python docs/make_api.py
	@.venv-dev/bin/python docs/make_settings.py

image:  ## build the serving image with Docker (ENGINE=cpu or gpu)
	docker build --target $(ENGINE) --tag tag2mask .

CHECK_PORT ?= 8765
check-image: image .venv-dev/.installed-$(ENGINE)  ## run the image as it is meant to be run, and send it a photo
	@docker run --detach --rm --name tag2mask-check --read-only --tmpfs /tmp --cap-drop ALL -p 127.0.0.1:$(CHECK_PORT):8000 tag2mask > /dev/null; \
	PYTHONPATH=. .venv-dev/bin/python tests/deploy/check_image.py http://127.0.0.1:$(CHECK_PORT); status=$$?; \
	docker image ls tag2mask; docker stop tag2mask-check > /dev/null; exit $$status

# All models from their photos, fixed seeds, each step once: what was stopped goes on. On one core: saliency 6 minutes, cam 10,
# its maps 25, labels 10, deeplab 35 twice and 100 with 25 for the labels between, what it recognises 3, figures 8; drs 40, amr 45, edam
# 50; the supervised twin, which is not shipped, 30.
PHOTOS ?= ../shared/photos
EXTRA_PHOTOS ?= ../shared/photos_extra

models: .venv-dev/.installed-$(ENGINE)  ## train and export all models (PHOTOS=DIR EXTRA_PHOTOS=DIR)
	.venv-dev/bin/python -m training run experiments/photos/cam.toml --set data.root=$(PHOTOS) --set data.extra=$(EXTRA_PHOTOS)
	.venv-dev/bin/python -m training run experiments/photos/drs.toml --set data.root=$(PHOTOS) --set data.extra=$(EXTRA_PHOTOS)
	.venv-dev/bin/python -m training run experiments/photos/amr.toml --set data.root=$(PHOTOS) --set data.extra=$(EXTRA_PHOTOS)
	.venv-dev/bin/python -m training run experiments/photos/edam.toml --set data.root=$(PHOTOS) --set data.extra=$(EXTRA_PHOTOS)
	.venv-dev/bin/python -m training run experiments/photos/supervised.toml --set data.root=$(PHOTOS)
	.venv-dev/bin/python -m training sheet --models $(foreach model,cam/5 drs/4 amr/4 edam/4 deeplab/11,models/$(model)/model.onnx) \
		--data $(PHOTOS) --out experiments/photos/sheet.jpg
