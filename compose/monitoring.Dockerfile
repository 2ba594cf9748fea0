# Prometheus and Alertmanager as Debian packages them, for machines that cannot pull the official images:
#
#   scripts/image --monitoring         cloudless-prometheus:local and cloudless-alertmanager:local
#   PROMETHEUS_IMAGE=cloudless-prometheus:local ALERTMANAGER_IMAGE=cloudless-alertmanager:local docker compose …
#
# Same user, directories and arguments as the official ones.
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS prometheus
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* && install -d -o nobody -g nogroup /prometheus
USER nobody
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]

FROM ${BASE_IMAGE} AS alertmanager
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus-alertmanager >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* && install -d -o nobody -g nogroup /alertmanager
USER nobody
EXPOSE 9093
ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]
