// Command kubernetes is a service that runs in a pod and tracks one event per
// request. docs/kubernetes.md explains it and has the manifests.
//
//	curl -d '{"event":"Signed Up"}' http://localhost:8080/events
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/s3sink/s3sink"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, getenv func(string) string) error {
	cfg, err := config(getenv)
	if err != nil {
		return err
	}
	sink, err := start(ctx, cfg)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: cmp.Or(getenv("LISTEN"), ":8080"), Handler: handler(sink), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	return errors.Join(err, shutdown(server, sink))
}

// config returns the settings of the manifests.
func config(getenv func(string) string) (s3sink.Config, error) {
	limit, err := strconv.ParseInt(getenv("MAX_SPOOL_BYTES"), 10, 64)
	if err != nil {
		return s3sink.Config{}, fmt.Errorf("MAX_SPOOL_BYTES: %w", err)
	}
	return s3sink.Config{
		Bucket:        getenv("BUCKET"),
		SourceID:      getenv("SOURCE_ID"),
		SpoolDir:      getenv("SPOOL_DIR"),
		MaxSpoolBytes: limit,
		Durability:    s3sink.SyncEach,
	}, nil
}

// startTimeout is how long start waits for the lock of the spool.
const startTimeout = time.Minute

// start creates the sink. It may have to wait until the pod that this one
// replaces has closed its sink.
func start(ctx context.Context, cfg s3sink.Config) (*s3sink.Sink, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s3sink.New(ctx, cfg)
}

// maxBody is the length of the longest request that handler reads.
const maxBody = s3sink.DefaultMaxEventBytes

// handler accepts events and answers the probes.
func handler(sink *s3sink.Sink) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /events", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		err = sink.Track(body)
		if wrong := (*s3sink.EventError)(nil); errors.As(err, &wrong) {
			http.Error(w, err.Error(), http.StatusBadRequest)
		} else if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	addProbes(mux, sink)
	return mux
}

const (
	requestTimeout = 10 * time.Second // for requests that are being served
	closeTimeout   = 40 * time.Second // for events that are not in S3 yet
)

// addProbes adds the probes of the kubelet.
func addProbes(mux *http.ServeMux, sink *s3sink.Sink) {
	// A restart repairs neither a bucket nor a disk, so the liveness probe does
	// not ask the sink.
	mux.HandleFunc("GET /live", func(http.ResponseWriter, *http.Request) {})

	// A pod whose disk fails accepts no events, but another pod does. A bucket
	// that refuses uploads does not make a pod unready: all pods have the same
	// bucket, and the spool accepts the events.
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if disk := (*s3sink.SpoolError)(nil); errors.As(sink.Err(), &disk) {
			http.Error(w, disk.Error(), http.StatusServiceUnavailable)
		}
	})
}

// shutdown waits for the requests, which track events, and then closes the
// sink. It returns nil if every event is in S3 or in the spool.
func shutdown(server *http.Server, sink *s3sink.Sink) error {
	requests, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	err := server.Shutdown(requests)

	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	closed := sink.Close(ctx)
	if errors.Is(closed, s3sink.ErrLeftInSpool) { // for the next pod
		log.Print(closed)
		closed = nil
	}
	return errors.Join(err, closed)
}
