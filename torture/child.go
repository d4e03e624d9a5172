package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/s3sink/s3sink"
)

// A job is the order for a child, as JSON on its standard input. The child exits at
// the end of its input, because then the parent has exited.
type job struct {
	Endpoint, Bucket, AccessKeyID, Secret string

	Dir             string
	Durability      s3sink.Durability
	CreateOnly      s3sink.CreateOnly
	MaxObjectEvents int64
	MaxObjectAge    time.Duration

	Seed    uint64 // of the lot
	Life    uint32
	Sources int
	Pause   time.Duration // maximum time between two events of a source

	Flush      time.Duration // interval of Flush calls; 0: never
	CloseAfter time.Duration // 0: never
	CloseFor   time.Duration // the time that Close gets

	Drain bool // upload the events in the spool and track none

	StopAfter   time.Duration // a source stops tracking after this time; 0: never
	StopRefused time.Duration // a source stops when its events were refused for this time; 0: never
}

const commitInterval = 50 * time.Millisecond

// Kinds of records. A child writes records of recordLen bytes to its standard
// output, each with one write, which a pipe keeps in one piece. Do not buffer them:
// a kill would lose the buffered records.
const (
	started   = 's' // New has returned
	acked     = 'a' // Track has returned nil
	unknown   = 'u' // Track has returned ErrOutcomeUnknown
	alive     = 'h' // every few milliseconds
	synced    = 'y' // Stats.Synced has changed: events accepted before it are on disk
	closing   = 'c' // Close is about to be called
	closed    = 'd' // Close has returned, and dropped nothing
	stopped   = 'e' // a source has stopped tracking
	recordLen = 8
)

// heartbeat is the interval of alive records.
const heartbeat = 5 * time.Millisecond

// say writes a record.
func say(kind byte, source int, n uint32) {
	var r [recordLen]byte
	r[0], r[1] = kind, byte(source)
	binary.LittleEndian.PutUint32(r[4:], n)
	if _, err := os.Stdout.Write(r[:]); err != nil {
		os.Exit(4)
	}
}

func child() int {
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return 3 // the parent has ended before it sent the job
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // returns when the parent has ended
		os.Exit(3)
	}()
	if err := j.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (j *job) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sink, err := s3sink.New(ctx, s3sink.Config{
		Bucket: j.Bucket, SourceID: sourceID(0), Region: region, Endpoint: j.Endpoint, UsePathStyle: true,
		Credentials: s3sink.AccessKeys(j.AccessKeyID, j.Secret, ""), CreateOnly: j.CreateOnly,
		SpoolDir: j.Dir, Durability: j.Durability, CommitInterval: commitInterval,
		MaxObjectEvents: j.MaxObjectEvents, MaxObjectAge: j.MaxObjectAge, CompressionLevel: 1,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	say(started, 0, 0)
	if j.Drain {
		return j.close(sink, 2*time.Minute, true)
	}
	go func() {
		var last time.Time
		for range time.Tick(heartbeat) {
			say(alive, 0, 0)
			if at := sink.Stats().Synced; at != last {
				last = at
				say(synced, 0, uint32(at.UnixMicro()))
			}
		}
	}()
	for source := range j.Sources {
		go j.produce(sink, source)
	}
	if j.Flush > 0 {
		go func() {
			for range time.Tick(j.Flush) {
				ctx, cancel := context.WithTimeout(context.Background(), j.Flush)
				_ = sink.Flush(ctx) // the bucket shows which events it uploaded
				cancel()
			}
		}()
	}
	if j.CloseAfter > 0 {
		time.Sleep(j.CloseAfter)
		return j.close(sink, j.CloseFor, false)
	}
	select {}
}

// close closes the sink. It returns an error if events were dropped or damaged, and
// with all also if events are left in the spool.
func (j *job) close(sink *s3sink.Sink, most time.Duration, all bool) error {
	say(closing, 0, 0)
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	err := sink.Close(ctx)
	var left *s3sink.CloseError
	if err != nil && (all || !errors.As(err, &left) || left.Dropped+left.Quarantined > 0) {
		return fmt.Errorf("close: %w (%+v)", err, sink.Stats())
	}
	say(closed, 0, 0)
	return nil
}

// produce tracks the events of one source, one after another.
func (j *job) produce(sink *s3sink.Sink, number int) {
	source, err := sink.Source(sourceID(number))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	rng := rand.New(rand.NewPCG(j.Seed, uint64(j.Life)<<8|uint64(number)))
	began, taken := time.Now(), time.Now()
	for n := uint32(0); ; {
		if j.StopAfter > 0 && time.Since(began) > j.StopAfter || j.StopRefused > 0 && time.Since(taken) > j.StopRefused {
			say(stopped, number, n)
			return
		}
		switch err := source.TrackLine(line(j.Seed, number, j.Life, n)); {
		case err == nil:
			say(acked, number, n)
			taken = time.Now()
			n++
		case errors.Is(err, s3sink.ErrOutcomeUnknown):
			say(unknown, number, n)
			n++
			time.Sleep(time.Millisecond)
		case errors.Is(err, s3sink.ErrClosed):
			return
		default: // the event was not taken: its number is used again
			time.Sleep(time.Millisecond)
		}
		if j.Pause > 0 && rng.IntN(8) > 0 {
			time.Sleep(upTo(rng, j.Pause))
		}
	}
}
