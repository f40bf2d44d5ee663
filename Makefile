# make demo   from nothing to a trained detector, its mAP and pictures
# make test   lint and tests
# make docs   the documentation as a site, in site/
# make venv   only the environment both run in (.venv)
# Needs Python >= 3.10 and make. PYTHON=python3.12 make ... chooses the interpreter.

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
DEMO := runs/quickstart

.PHONY: demo test docs venv clean

demo: $(READY)
	$(PY) datasets/make_shapes.py
	@if [ -f $(DEMO)/checkpoints/last.pt ]; then flag=--resume; elif [ -d $(DEMO) ]; then flag=--overwrite; fi; \
	  echo "$(PY) tools/train.py configs/quickstart.yaml $$flag"; \
	  $(PY) tools/train.py configs/quickstart.yaml $$flag
	$(PY) tools/eval.py $(DEMO)
	$(PY) tools/predict.py $(DEMO) data/shapes/test --output out/quickstart
	@echo
	@echo "Open these pictures:"
	@echo "  $(DEMO)/eval/val/samples.jpg   ground truth (white) beside detections"
	@echo "  $(DEMO)/eval/curves.png        losses, learning rate and AP"
	@echo "  out/quickstart/                detections on images the training has not seen"

test: $(READY)
	.venv/bin/ruff check .
	$(PY) -m pytest

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

venv: $(READY)

# uv where it is there or can be had, else pip: the same packages, only slower
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed, not ' + sys.version)"
	if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && uv pip install --python $(PY) -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv .venv && \
	  if $(PY) -m pip install --quiet uv; then .venv/bin/uv pip install --python $(PY) -e '.[dev]'; \
	  else $(PY) -m pip install -e '.[dev]'; fi; \
	fi
	touch $@

clean:
	rm -rf .venv runs/quickstart out/quickstart data/shapes
