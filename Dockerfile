# The server in an image without a shell, with an unprivileged process. How to run it:
# docs/operations.md#containers. Why on this base: docs/decisions/0096-image-on-distroless.md.

# The same Debian release as the image below, so that the binary is linked with the image's C
# library.
FROM rust:1.95-slim-bookworm AS build
# For jemalloc. The compiler, the linker and binutils are in this image.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The commit that the API reports; .git is not copied.
ARG COMMIT=""
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target OUTRIDER_COMMIT="$COMMIT" .ci/release /published \
 && mkdir /data

# docker build --target symbols --output . .
FROM scratch AS symbols
COPY --from=build /published/outrider.debug /

# The C library, libgcc and the certificates of public authorities; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Outrider" \
      org.opencontainers.image.description="A webhook gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /published/outrider /usr/local/bin/outrider
# For SQLite and a generated master key: a new volume here gets this owner. With PostgreSQL and
# Redis, nothing is written.
COPY --from=build --chown=65532:65532 /data /var/lib/outrider
WORKDIR /var/lib/outrider
USER 65532:65532
# The default is loopback, which is not reachable from outside the container.
ENV OUTRIDER_GATEWAY_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/outrider", "health"]
ENTRYPOINT ["/usr/local/bin/outrider"]
CMD ["serve"]
