package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
)

// deadStore takes no PUT and refuses none: the network is there and nobody
// answers.
type deadStore struct{}

func (deadStore) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

// nullStore takes every PUT and keeps nothing. If it is told to, it unpacks the
// objects and notes whose lines came.
type nullStore struct {
	unpack bool

	mu     sync.Mutex
	events int64 // as the objects' metadata says
	seen   map[int64]int
	left   delivery // of sources that are not ownSource
}

// delivery is objects that have come.
type delivery struct {
	Objects, Bytes, Events int64
	First, Last            time.Time
}

// ownSource is whose events a child tracks that takes a spool over. No spool is
// filled with them.
const ownSource = "bench"

func (s *nullStore) RoundTrip(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	counted := &countingReader{from: r.Body}
	var numbers []int64
	if s.unpack {
		var err error
		if numbers, err = unpack(counted); err != nil {
			return nil, err
		}
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return nil, err
	}
	events, err := strconv.ParseInt(r.Header.Get("X-Amz-Meta-S3sink-Events"), 10, 64)
	if err != nil {
		return nil, err
	}
	s.note(!strings.Contains(r.URL.Path, "/"+ownSource+"/"), events, counted.n, numbers)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Etag": {`"e"`}}, Body: http.NoBody, Request: r}, nil
}

func (s *nullStore) note(left bool, events, bytes int64, numbers []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events += events
	if left {
		d := &s.left
		d.Last = time.Now()
		if d.Objects == 0 {
			d.First = d.Last
		}
		d.Objects, d.Bytes, d.Events = d.Objects+1, d.Bytes+bytes, d.Events+events
	}
	if s.seen == nil {
		s.seen = map[int64]int{}
	}
	for _, n := range numbers {
		s.seen[n]++
	}
}

// delivered returns what has come of what was left.
func (s *nullStore) delivered() delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

type countingReader struct {
	from io.Reader
	n    int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.n += int64(n)
	return n, err
}

// unpack returns the numbers of an object's lines.
func unpack(object io.Reader) (numbers []int64, err error) {
	in, err := gzip.NewReader(object)
	if err != nil {
		return nil, err
	}
	for lines := bufio.NewReader(in); ; {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return numbers, nil
		}
		if err != nil {
			return nil, err
		}
		n, err := numberOf(line)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
}

// check returns an error unless n events came. If the store has looked, each of
// them was one that was tracked, and came once.
func (s *nullStore) check(n int64, tracked func(number int64) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events != n {
		return fmt.Errorf("%d events in the store, want %d", s.events, n)
	}
	if s.unpack && len(s.seen) != int(n) {
		return fmt.Errorf("%d lines in the store, want %d", len(s.seen), n)
	}
	for number, times := range s.seen {
		if times != 1 || !tracked(number) {
			return fmt.Errorf("line %d is %d times in the store", number, times)
		}
	}
	return nil
}

// checkFirst is check where the first n numbers were tracked.
func (s *nullStore) checkFirst(n int64) error {
	return s.check(n, func(number int64) bool { return number >= 0 && number < n })
}

// config is that of a sink which sends to a store.
func config(dir string, to http.RoundTripper) s3sink.Config {
	return s3sink.Config{
		Bucket: "null", SourceID: ownSource, Region: "us-east-1",
		Credentials: s3sink.AccessKeys("AKIA", "secret", ""), AWS: new(aws.Config),
		HTTPClient: &http.Client{Transport: to},
		SpoolDir:   dir, MaxSpoolBytes: 1 << 40,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
}

// start opens a sink, when it has noted what this process has resident with one
// that has nothing to do. began is when New was called.
func start(ctx context.Context, cfg s3sink.Config, have *int64) (sink *s3sink.Sink, began time.Time, err error) {
	if *have, err = idle(ctx, cfg); err != nil {
		return nil, began, err
	}
	began = time.Now()
	sink, err = s3sink.New(ctx, cfg)
	return sink, began, err
}

// idle returns what this process has resident with a sink that has nothing to
// do: with what it is measured with, but on an empty directory.
func idle(ctx context.Context, cfg s3sink.Config) (int64, error) {
	if cfg.SpoolDir != "" {
		dir, err := os.MkdirTemp(filepath.Dir(cfg.SpoolDir), "idle-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		cfg.SpoolDir = dir
	}
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		return 0, err
	}
	debug.FreeOSMemory() // what was made before is not the sink's
	have := resident()
	return have, sink.Close(ctx)
}

// books returns an error unless a sink accounts for every event.
func books(st s3sink.Stats) error {
	if st.Accepted+st.Recovered != st.Delivered+st.Pending+st.Quarantined+st.Dropped || st.Quarantined+st.Dropped > 0 || st.SpoolError != nil {
		return fmt.Errorf("the books are not in order: %+v", st)
	}
	return nil
}
