package s3sink_test

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// open returns a sink for cfg. At the end of the test the sink is closed,
// unless the test has closed it, and its counts must balance.
func open(t testing.TB, cfg s3sink.Config) *s3sink.Sink {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	sink, err := s3sink.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sink.Close(t.Context()) // the context has ended: Close drops the remaining events
		checkBooks(t, sink)
		if st := sink.Stats(); cfg.SpoolDir == "" && (st.Pending != 0 || st.Memory != 0 || st.OpenPartitions != 0) {
			t.Errorf("after Close: %+v, want nothing left", st)
		}
	})
	return sink
}

// bubble runs a test in a synctest bubble, with a server that is reached in
// memory and the Config of a sink that writes to it.
func bubble(t *testing.T, f func(*testing.T, *s3sinktest.Server, s3sink.Config)) {
	t.Helper()
	bubbleWith(t, nil, f)
}

// bubbleWith is bubble with options for the server.
func bubbleWith(t *testing.T, opts []s3sinktest.Option, f func(*testing.T, *s3sinktest.Server, s3sink.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, cfg := s3sinktest.New(t, append(opts, s3sinktest.InMemory())...)
		f(t, server, cfg)
	})
}

// patience is the time a test waits for an expected event before it fails with
// a message. In a bubble a wait without a limit would never end: retries keep
// advancing the clock.
const patience = 2 * time.Minute

type tracker interface{ Track(event any) error }

func mustTrack(t testing.TB, to tracker, event any) {
	t.Helper()
	if err := to.Track(event); err != nil {
		t.Fatal(err)
	}
}

func mustFlush(t testing.TB, of interface{ Flush(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := of.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// checkBooks checks that the counts of Stats balance: every event is accounted
// for.
func checkBooks(t testing.TB, sink *s3sink.Sink) {
	t.Helper()
	st := sink.Stats()
	if st.Accepted+st.Recovered != st.Delivered+st.Pending+st.Quarantined+st.Dropped {
		t.Errorf("books do not balance: %+v", st)
	}
}

// mustClose closes sink, and fails the test unless everything is in S3.
func mustClose(t testing.TB, sink *s3sink.Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := sink.Close(ctx); err != nil {
		t.Fatal(err)
	}
	checkBooks(t, sink)
}

// object is a stored object, unpacked and checked.
type object struct {
	s3sinktest.Object
	sequence int
	lines    []string
}

// objects returns the objects of the bucket, in the order of the sequence in
// their metadata. Each must be one gzip member of whole lines, and its contents
// must match its metadata.
func objects(t testing.TB, server *s3sinktest.Server, bucket string) []object {
	t.Helper()
	var all []object
	for _, o := range server.Objects(bucket) {
		all = append(all, unpack(t, o))
	}
	slices.SortFunc(all, func(a, b object) int { return cmp.Compare(a.sequence, b.sequence) })
	return all
}

func unpack(t testing.TB, o s3sinktest.Object) object {
	t.Helper()
	packed := bytes.NewReader(o.Body)
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatalf("%s: %v", o.Key, err)
	}
	r.Multistream(false)
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", o.Key, err)
	}
	if packed.Len() != 0 {
		t.Fatalf("%s: %d bytes behind the first gzip member", o.Key, packed.Len())
	}
	if !bytes.HasSuffix(raw, []byte("\n")) {
		t.Fatalf("%s: empty, or its last line does not end", o.Key)
	}
	if o.Writes != 1 {
		t.Errorf("%s: stored %d times", o.Key, o.Writes)
	}
	got := object{Object: o}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	sc.Buffer(nil, len(raw)+1)
	for sc.Scan() {
		got.lines = append(got.lines, sc.Text())
	}
	meta := func(name string) int {
		n, err := strconv.Atoi(o.Metadata["s3sink-"+name])
		if err != nil {
			t.Fatalf("%s: metadata %s: %v", o.Key, name, err)
		}
		return n
	}
	got.sequence = meta("sequence")
	if meta("events") != len(got.lines) || meta("raw-bytes") != len(raw) {
		t.Errorf("%s: %d lines and %d bytes, metadata says %v", o.Key, len(got.lines), len(raw), o.Metadata)
	}
	return got
}

// lines returns every stored line, objects in sequence.
func lines(t testing.TB, server *s3sinktest.Server, bucket string) []string {
	t.Helper()
	var all []string
	for _, o := range objects(t, server, bucket) {
		all = append(all, o.lines...)
	}
	return all
}

// nullStore is a transport that accepts every PUT. Tests and benchmarks use it
// to measure the stages before the upload.
type nullStore struct{ objects, events, bytes atomic.Int64 }

func (s *nullStore) RoundTrip(r *http.Request) (*http.Response, error) {
	n, err := io.Copy(io.Discard, r.Body)
	r.Body.Close()
	if err != nil {
		return nil, err
	}
	events, err := strconv.ParseInt(r.Header.Get("X-Amz-Meta-S3sink-Events"), 10, 64)
	if err != nil {
		return nil, err
	}
	s.objects.Add(1)
	s.events.Add(events)
	s.bytes.Add(n)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Etag": {`"e"`}}, Body: http.NoBody, Request: r}, nil
}

// config returns a Config for a sink that writes to the store.
func (s *nullStore) config() s3sink.Config {
	return s3sink.Config{
		Bucket: "null", SourceID: "test", Region: "us-east-1",
		Credentials: s3sink.AccessKeys("AKIA", "secret", ""),
		HTTPClient:  &http.Client{Transport: s},
		AWS:         &aws.Config{},
	}
}

// names returns the names of the entries of a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
