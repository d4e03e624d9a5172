package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/s3sink/s3sink"
)

const (
	// closeTimeout is long enough to upload all events in the sink's memory
	// over a slow connection.
	closeTimeout = 5 * time.Minute

	// closeGrace limits Close after an interrupt.
	closeGrace = 10 * time.Second
)

// shipment records the events of one run and the objects that hold them.
type shipment struct {
	ledger      ledger
	skipped     int64 // lines of standard input that are not events
	interrupted bool
	stats       s3sink.Stats
	took        time.Duration

	// Read by the goroutine that prints the progress line.
	events, bytes atomic.Int64

	mu      sync.Mutex
	objects []s3sink.ObjectInfo // uploaded
}

// withHooks returns cfg with a logger, and with hooks that record and report
// the uploads.
func withHooks(cfg s3sink.Config, s *shipment, giveUp context.CancelCauseFunc, con *console) s3sink.Config {
	cfg.Logger = slog.New(slog.NewTextHandler(con, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Hooks = s3sink.Hooks{
		Uploaded: s.onUploaded,
		Attempt: func(a s3sink.Attempt) {
			cancelled := errors.Is(a.Err, context.Canceled) // by Close, or for another attempt
			if s3sink.Retryable(a.Err) && !cancelled {
				fmt.Fprintln(con, "quickstart: upload failed, retrying:", a.Err)
			}
		},
		// A service would continue: its sink keeps the events and retries
		// slowly. This program ends, so that its user can fix the cause.
		Parked: func(p s3sink.Parked) { giveUp(p.Err) },
	}
	return cfg
}

// send tracks events until the input ends or ctx ends, and closes the sink. It
// fills in s even if it returns an error.
func (s *shipment) send(ctx context.Context, sink *s3sink.Sink, o options, stdin io.Reader, con *console) error {
	start := time.Now()
	stop := con.watch(func() string { return s.progress(time.Since(start)) })
	err := s.track(ctx, sink, o, stdin, con)
	if ctx.Err() != nil {
		err = nil // only a consequence of ctx; Close reports the events that were lost
		s.interrupted = !uploadRefused(ctx)
	}
	err = errors.Join(err, closeSink(ctx, sink))
	stop()
	s.took = time.Since(start)
	s.stats = sink.Stats()
	return err
}

// track tracks the events of the input that the flags select.
func (s *shipment) track(ctx context.Context, sink *s3sink.Sink, o options, stdin io.Reader, con *console) error {
	if !o.stdin {
		return s.trackSamples(ctx, sink, o.source)
	}
	in := &input{source: o.source, shipment: s, con: con}
	return in.track(ctx, sink, stdin)
}

// closeSink closes the sink, which uploads its events. It waits for
// closeTimeout at most, and for closeGrace at most after ctx has ended.
func closeSink(ctx context.Context, sink *s3sink.Sink) error {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	closing, giveUp := context.WithCancelCause(closing)
	defer giveUp(nil)
	defer context.AfterFunc(ctx, func() {
		wait := closeGrace
		if uploadRefused(ctx) {
			wait = 0 // S3 would refuse a retry too
		}
		time.AfterFunc(wait, func() { giveUp(context.Cause(ctx)) })
	})()
	err := sink.Close(closing)
	var left *s3sink.CloseError
	if uploadRefused(ctx) && errors.As(err, &left) {
		return fmt.Errorf("S3 refused the objects and %d events were dropped: %w", left.Dropped, context.Cause(ctx))
	}
	return err
}

// uploadRefused reports whether ctx ended because S3 refused an object.
func uploadRefused(ctx context.Context) bool {
	var upload *s3sink.UploadError
	return errors.As(context.Cause(ctx), &upload)
}

func (s *shipment) onUploaded(u s3sink.Uploaded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects = append(s.objects, u.Object)
}

// uploaded returns the objects that S3 has acknowledged.
func (s *shipment) uploaded() []s3sink.ObjectInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.objects)
}

// progress returns the text of the progress line.
func (s *shipment) progress(took time.Duration) string {
	n := s.bytes.Load()
	return fmt.Sprintf("sending: %d events, %s, %s/s, %d objects in the bucket",
		s.events.Load(), size(n), size(int64(float64(n)/took.Seconds())), len(s.uploaded()))
}
