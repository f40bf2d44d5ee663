# make demo   from nothing to a trained detector, its mAP and pictures
# make test   lint, types and tests
# make docs   the documentation as a site, in site/
# make clean  removes what these made
# Needs Python >= 3.10 and make. PYTHON=python3.12 make ... chooses the interpreter.

PYTHON ?= python3
PY := .venv/bin/python
FOR_USER := .venv/.user
FOR_DEVELOPER := .venv/.developer
DEMO := runs/quickstart

.PHONY: demo test docs clean

demo: $(FOR_USER)
	$(PY) datasets/make_shapes.py
	@if [ -f $(DEMO)/checkpoints/last.pt ]; then flag=--resume; elif [ -d $(DEMO) ]; then flag=--overwrite; fi; \
	  echo "$(PY) tools/train.py configs/quickstart.yaml $$flag"; \
	  $(PY) tools/train.py configs/quickstart.yaml $$flag
	$(PY) tools/eval.py $(DEMO)
	$(PY) tools/predict.py $(DEMO) data/shapes/test --output out/quickstart
	@echo
	@echo "The rare classes at the end of the table are hardly found. What imbalance=auto would change:"
	@echo
	$(PY) tools/show_augment.py configs/quickstart.yaml imbalance=auto --output out/quickstart/augment.jpg
	@echo
	@echo "Train with it: $(PY) tools/train.py configs/quickstart.yaml imbalance=auto output_dir=runs/balanced"
	@echo
	@echo "Open:"
	@echo "  $(DEMO)/report.html           the verdict, every class, the worst misses"
	@echo "  $(DEMO)/eval/val/samples.jpg  ground truth (white) beside detections"
	@echo "  out/quickstart/                       detections on images the training has not seen"
	@echo "  out/quickstart/augment.jpg            rare objects pasted into other images, as imbalance=auto does"

test: $(FOR_DEVELOPER)
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PY) -m pytest

docs: $(FOR_DEVELOPER)
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

$(FOR_USER): WHAT := .
$(FOR_DEVELOPER): WHAT := .[dev]

# uv where it is there or can be had, else pip: the same packages, only slower
$(FOR_USER) $(FOR_DEVELOPER): requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed, not ' + sys.version)"
	if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && uv pip install --python $(PY) -e '$(WHAT)'; \
	else \
	  $(PYTHON) -m venv .venv && \
	  if $(PY) -m pip install --quiet uv; then .venv/bin/uv pip install --python $(PY) -e '$(WHAT)'; \
	  else $(PY) -m pip install -e '$(WHAT)'; fi; \
	fi
	touch $@

clean:
	rm -rf .venv runs/quickstart out/quickstart data/shapes site
