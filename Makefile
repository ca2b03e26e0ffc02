# `make` alone lists the targets.
.DEFAULT_GOAL := help
CARGO ?= cargo
ARGS ?=
# `dev` builds quickest; `make run PROFILE=release` runs quickest.
PROFILE ?= dev

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Build and start everything: nats-server, PostgreSQL, all roles, a demo model
	$(CARGO) run --locked --profile $(PROFILE) -p baton -- dev $(ARGS)

.PHONY: test
test: ## All tests, against a real nats-server and a real PostgreSQL
	./scripts/test $(ARGS)

.PHONY: lint
lint: ## Format, clippy, dependency rules, query metadata
	./scripts/lint

.PHONY: fuzz
fuzz: ## Look for bytes that break a reader: ARGS='--seconds 20 sse job'
	./scripts/fuzz $(ARGS)

.PHONY: compat
compat: ## SDKs and agent frameworks, LiteLLM's proxy and requests made from /openapi.json against a live Baton
	./scripts/compat

.PHONY: observe
observe: ## Dashboards, rules and alerts against a real Prometheus: ARGS=--images, --alerts, or --traces (spans at a real receiver)
	./scripts/observe $(ARGS)

.PHONY: bench
bench: ## Speed against the direct upstream: a table, ratios, JSON
	./scripts/bench $(ARGS)

.PHONY: chaos
chaos: ## Break real processes under load, judge the promises: ARGS='--minutes 5 --seed 1'
	./scripts/chaos $(ARGS)

.PHONY: upgrade-test
upgrade-test: ## The same with processes of an older revision beside those of this one: ARGS='REVISION --minutes 5'
	./scripts/upgrade-test $(ARGS)

# A deployment is run from this folder; `make secrets` fills it.
DEPLOYMENT ?= deployments
BATON_IMAGE ?= baton:latest
COMPOSE = cd $(DEPLOYMENT) && docker compose

.PHONY: image
image: ## Build the image, a static binary and nothing else: ARGS='--tag NAME'
	./scripts/image --tag $(BATON_IMAGE) $(ARGS)

.PHONY: secrets
secrets: ## Write a deployment's secrets and configuration, replacing nothing: DEPLOYMENT=DIR
	$(CARGO) run --locked -p baton -- init $(DEPLOYMENT)

.PHONY: compose-up
compose-up: ## Start the deployment with Docker Compose and wait until all of it is healthy: ARGS='--scale worker=4'
	$(COMPOSE) up --detach --wait $(ARGS)

.PHONY: compose-down
compose-down: ## Stop the deployment and keep its data
	$(COMPOSE) down $(ARGS)

.PHONY: compose-test
compose-test: ## The compose files on a real engine: scaling, replacing and crashes under load
	./scripts/compose-test $(ARGS)

.PHONY: validate
validate: ## The files of deployments/ before hadolint, Compose, nginx, gixy, systemd and shellcheck
	./scripts/validate
