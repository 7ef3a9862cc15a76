# mocha-pipe: the commands of this repository. Every target does its own set-up and is safe to repeat.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
BIOME      := 2.6.8
TYPESCRIPT := 5.9.3

# An argument that was not given leaves its flag out, so that the command's own default holds.
DATA    ?=
TEACHER ?=
CACHE   ?=
STUDENT ?=
RUN     ?=
YOLOE   ?=
PHOTOS  ?=
DETECTOR ?=
COCO    ?=
DATA_FLAG    = $(if $(DATA),--data '$(DATA)')
TEACHER_FLAG = $(if $(TEACHER),--teacher '$(TEACHER)')
CACHE_FLAG   = $(if $(CACHE),--cache '$(CACHE)')
STUDENT_FLAG = $(if $(STUDENT),--student '$(STUDENT)')
RUN_FLAG     = $(if $(RUN),--run '$(RUN)')
YOLOE_FLAG   = $(if $(YOLOE),--yoloe '$(YOLOE)')
DETECTOR_FLAG = $(if $(DETECTOR),--detector '$(DETECTOR)')
COCO_FLAG    = $(if $(COCO),--coco '$(COCO)')

.DEFAULT_GOAL := help
.PHONY: help install demo cache-teacher distill fewshot bench bench-gpu bench-rivals soak study study-photos test test-newest test-families test-gpu mutants browser lint format coverage miniature-teacher clean

# ---- Getting started ------------------------------------------------------------------------------------------------

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make the virtual environment in .venv and install the package with its development tools

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## all stages on the miniature world; leaves work/demo/report.json and report.html
	$(BIN)/mocha-pipe demo

# ---- The two phases, and few-shot -----------------------------------------------------------------------------------

cache-teacher: $(STAMP) ## phase 1 [DATA= TEACHER= CACHE=]: embed every box once; defaults to the miniature
	$(BIN)/mocha-pipe cache build $(DATA_FLAG) $(TEACHER_FLAG) $(CACHE_FLAG)

distill: $(STAMP) ## phase 2 [DATA= CACHE= STUDENT= RUN=]: train a student on the cache; defaults to the miniature
	$(BIN)/mocha-pipe distill $(DATA_FLAG) $(CACHE_FLAG) $(STUDENT_FLAG) $(RUN_FLAG)

fewshot: $(STAMP) ## one photo per object: the last distilled student against its base detector
	$(BIN)/mocha-pipe fewshot --shots 1

# ---- Measurements ---------------------------------------------------------------------------------------------------

bench: $(STAMP) ## speed of the teacher cache against named alternatives, on the CPU; leaves work/bench.json
	$(BIN)/python -m bench

bench-gpu: $(STAMP) ## both phases on a CUDA GPU, with random weights; leaves work/bench-gpu.json
	$(BIN)/python -m bench.gpu

bench-rivals: demo ## accuracy, speed and size beside rivals [YOLOE=weights.pt]; runs the demo first; leaves work/rivals.json
	$(BIN)/python -m bench.rivals $(YOLOE_FLAG)

soak: $(STAMP) ## kill 500 real builds and transfers at random moments; leaves work/soak.json
	$(BIN)/python -m bench.soak

study: $(STAMP) ## what distillation brings on the miniature benchmark, 3 seeds x 5 recipes; leaves work/study.json
	$(BIN)/python -m bench.study

study-photos: $(STAMP) ## what to expect on photographs: PHOTOS=FOLDER [TEACHER= DETECTOR= COCO=]; leaves work/study-photos.json
	@test -n '$(PHOTOS)' || { echo "name the folder of the photographs: make study-photos PHOTOS=FOLDER (docs/photographs.md)"; exit 2; }
	$(BIN)/python -m bench.photos '$(PHOTOS)' $(TEACHER_FLAG) $(DETECTOR_FLAG) $(COCO_FLAG)

# ---- Development ----------------------------------------------------------------------------------------------------

test: $(STAMP) ## run the whole test suite: one worker for each core, one thread for each worker
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-newest: ## run the suite with the newest release of every dependency, in work/newest (see docs/testing.md)
	rm -rf work/newest
	$(PYTHON) -m venv work/newest
	work/newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	OMP_NUM_THREADS=1 work/newest/bin/python -m pytest -n auto --dist loadfile

test-families: $(STAMP) ## the contract of teachers for all families of vision-language models; counts them into work/bench.json
	$(BIN)/python -m bench families

test-gpu: $(STAMP) ## the tests of teachers and students, computed on a CUDA GPU
	MOCHA_PIPE_TEST_DEVICE=cuda OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile tests/teacher_cache/teachers tests/student

mutants: $(STAMP) ## break twenty-five places of the product, one by one: the tests must go red for each
	$(BIN)/python -m bench.mutants

browser: $(STAMP) ## what the tests of the page want: Chromium (apt, as root) and onnxruntime-web (npm)
	command -v chromium > /dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends chromium; }
	$(BIN)/python -m mocha_pipe.pipeline.web.runtime

lint: $(STAMP) ## ruff, formatting, mypy --strict, directions of imports; of the page Biome and tsc, where npm is
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@command -v npm > /dev/null || echo "the page is not linted: npm is not installed"
	! command -v npm > /dev/null || npx --yes @biomejs/biome@$(BIOME) check web tsconfig.json biome.json
	! command -v npm > /dev/null || npx --yes --package typescript@$(TYPESCRIPT) tsc --project tsconfig.json

format: $(STAMP) ## mend what ruff and Biome can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	! command -v npm > /dev/null || npx --yes @biomejs/biome@$(BIOME) check --write web tsconfig.json biome.json

coverage: $(STAMP) ## run the tests and print line coverage by file
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

miniature-teacher: $(STAMP) ## train the shipped miniature teacher again from its seed, into work/miniature-teacher
	$(BIN)/python -m bench.teachers.train_miniature work/miniature-teacher

clean: ## remove caches of the tools; leaves .venv and work/ alone
	rm -rf .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find bench data teacher_cache student pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
