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
	// closeTimeout is enough for all that the sink holds over a slow line.
	closeTimeout = 5 * time.Minute

	// closeGrace is how long Close may take once the person wants to stop.
	closeGrace = 10 * time.Second
)

// shipment is what was sent in one run, and what became of it.
type shipment struct {
	books       books
	skipped     int64 // lines of standard input that are no events
	interrupted bool
	stats       s3sink.Stats
	took        time.Duration

	// For the progress line, which another goroutine prints.
	events, bytes atomic.Int64

	mu      sync.Mutex
	objects []s3sink.ObjectInfo // in the bucket
}

// observed is cfg with somebody who looks at what happens to the objects.
func observed(cfg s3sink.Config, s *shipment, giveUp context.CancelCauseFunc, con *console) s3sink.Config {
	cfg.Logger = slog.New(slog.NewTextHandler(con, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Hooks = s3sink.Hooks{
		Uploaded: s.onUploaded,
		Attempt: func(a s3sink.Attempt) {
			cutOff := errors.Is(a.Err, context.Canceled) // by Close, or for another attempt
			if s3sink.Retryable(a.Err) && !cutOff {
				fmt.Fprintln(con, "quickstart: will try again:", a.Err)
			}
		},
		// A service goes on: its sink keeps the events and tries again, slowly.
		// Here somebody is waiting, and has to mend something first.
		Parked: func(p s3sink.Parked) { giveUp(p.Err) },
	}
	return cfg
}

// send tracks the events until there are no more or ctx ends, and closes the
// sink. After an error too, s says what was sent.
func (s *shipment) send(ctx context.Context, sink *s3sink.Sink, o options, stdin io.Reader, con *console) error {
	start := time.Now()
	stop := con.watch(func() string { return s.progress(time.Since(start)) })
	err := s.track(ctx, sink, o, stdin, con)
	if ctx.Err() != nil {
		err = nil // no fault of its own; Close says what became of the events
		s.interrupted = !refused(ctx)
	}
	err = errors.Join(err, closeSink(ctx, sink))
	stop()
	s.took = time.Since(start)
	s.stats = sink.Stats()
	return err
}

func (s *shipment) track(ctx context.Context, sink *s3sink.Sink, o options, stdin io.Reader, con *console) error {
	if !o.stdin {
		return s.trackSamples(ctx, sink, o.source)
	}
	in := &input{source: o.source, shipment: s, con: con}
	return in.track(ctx, sink, stdin)
}

// closeSink waits until everything is in the bucket, but not for ever, and not
// for long after ctx has ended.
func closeSink(ctx context.Context, sink *s3sink.Sink) error {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	closing, giveUp := context.WithCancelCause(closing)
	defer giveUp(nil)
	defer context.AfterFunc(ctx, func() {
		wait := closeGrace
		if refused(ctx) {
			wait = 0 // another try would be refused too
		}
		time.AfterFunc(wait, func() { giveUp(context.Cause(ctx)) })
	})()
	err := sink.Close(closing)
	var left *s3sink.CloseError
	if refused(ctx) && errors.As(err, &left) {
		return fmt.Errorf("S3 refuses the objects, and %d events were dropped: %w", left.Dropped, context.Cause(ctx))
	}
	return err
}

// refused says whether ctx ended because S3 refuses our objects.
func refused(ctx context.Context) bool {
	var refusal *s3sink.UploadError
	return errors.As(context.Cause(ctx), &refusal)
}

func (s *shipment) onUploaded(u s3sink.Uploaded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects = append(s.objects, u.Object)
}

// uploaded returns the objects that are in the bucket.
func (s *shipment) uploaded() []s3sink.ObjectInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.objects)
}

func (s *shipment) progress(took time.Duration) string {
	n := s.bytes.Load()
	return fmt.Sprintf("sending: %d events, %s, %s/s, %d objects in the bucket",
		s.events.Load(), size(n), size(int64(float64(n)/took.Seconds())), len(s.uploaded()))
}
