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

// deadStore never answers a request: it blocks until the request is cancelled.
type deadStore struct{}

func (deadStore) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

// nullStore accepts every PUT and keeps no object. With unpack it decompresses
// the objects and counts each line by its number.
type nullStore struct {
	unpack bool

	mu      sync.Mutex
	events  int64         // the sum of the objects' metadata
	lines   map[int64]int // how often each line number came
	backlog delivery      // of all sources except newEventSource
}

// delivery counts delivered objects.
type delivery struct {
	Objects, Bytes, Events int64
	First, Last            time.Time
}

// newEventSource is the source of the events that a child tracks after it has
// started on a spool. No spool holds events of this source.
const newEventSource = "bench"

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
	s.record(!strings.Contains(r.URL.Path, "/"+newEventSource+"/"), events, counted.n, numbers)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Etag": {`"e"`}}, Body: http.NoBody, Request: r}, nil
}

// record counts one object.
func (s *nullStore) record(isBacklog bool, events, bytes int64, numbers []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events += events
	if isBacklog {
		d := &s.backlog
		d.Last = time.Now()
		if d.Objects == 0 {
			d.First = d.Last
		}
		d.Objects, d.Bytes, d.Events = d.Objects+1, d.Bytes+bytes, d.Events+events
	}
	if s.lines == nil {
		s.lines = map[int64]int{}
	}
	for _, n := range numbers {
		s.lines[n]++
	}
}

// deliveredBacklog counts the objects of the spool that have been delivered.
func (s *nullStore) deliveredBacklog() delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backlog
}

// countingReader counts the bytes that are read from another reader.
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

// check returns an error unless the store received n events. With unpack it
// also requires that each line was tracked and came exactly once.
func (s *nullStore) check(n int64, tracked func(number int64) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events != n {
		return fmt.Errorf("the store received %d events, want %d", s.events, n)
	}
	if s.unpack && len(s.lines) != int(n) {
		return fmt.Errorf("the store received %d different lines, want %d", len(s.lines), n)
	}
	for number, times := range s.lines {
		if times != 1 || !tracked(number) {
			return fmt.Errorf("the store received line %d %d times (tracked: %t)", number, times, tracked(number))
		}
	}
	return nil
}

// checkFirst is check for a sink that tracked the lines 0 to n-1.
func (s *nullStore) checkFirst(n int64) error {
	return s.check(n, func(number int64) bool { return number >= 0 && number < n })
}

// config returns the Config of a sink that uploads to a store.
func config(dir string, to http.RoundTripper) s3sink.Config {
	return s3sink.Config{
		Bucket: "null", SourceID: newEventSource, Region: "us-east-1",
		Credentials: s3sink.AccessKeys("AKIA", "secret", ""), AWS: new(aws.Config),
		HTTPClient: &http.Client{Transport: to},
		SpoolDir:   dir, MaxSpoolBytes: 1 << 40,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
}

// openSink creates a sink. Before that it stores the resident memory of this
// process with an idle sink into idleBytes. began is the time at which New was
// called.
func openSink(ctx context.Context, cfg s3sink.Config, idleBytes *int64) (sink *s3sink.Sink, began time.Time, err error) {
	if *idleBytes, err = idleMemory(ctx, cfg); err != nil {
		return nil, began, err
	}
	began = time.Now()
	sink, err = s3sink.New(ctx, cfg)
	return sink, began, err
}

// idleMemory returns the resident bytes of this process with an idle sink that
// has the given Config, except that its spool is an empty directory.
func idleMemory(ctx context.Context, cfg s3sink.Config) (int64, error) {
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
	debug.FreeOSMemory() // excludes garbage from before New
	bytes := resident()
	return bytes, sink.Close(ctx)
}

// checkAccounting returns an error unless every accepted or recovered event is
// delivered or pending.
func checkAccounting(st s3sink.Stats) error {
	if st.Accepted+st.Recovered != st.Delivered+st.Pending+st.Quarantined+st.Dropped || st.Quarantined+st.Dropped > 0 || st.SpoolError != nil {
		return fmt.Errorf("some events are neither delivered nor pending, or the spool failed: %+v", st)
	}
	return nil
}
