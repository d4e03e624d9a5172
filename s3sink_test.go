package s3sink_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

func TestEventsArrive(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]s3sinktest.Option{
		"http": nil, "https": {s3sinktest.TLS()}, "in memory": {s3sinktest.InMemory()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cfg := s3sinktest.New(t, opts...)
			sink := open(t, cfg)
			var want []string
			for i := range 100 {
				want = append(want, fmt.Sprintf(`{"n":%d}`, i))
				mustTrack(t, sink, map[string]int{"n": i})
			}
			mustClose(t, sink)
			if got := lines(t, server, s3sinktest.Bucket); !slices.Equal(got, want) {
				t.Errorf("got %d lines %q…, want %d", len(got), got[:min(3, len(got))], len(want))
			}
		})
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		other, err := sink.Source("other")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for _, track := range []func(any) error{sink.Track, other.Track} {
				if err := track(struct{}{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		began := time.Now()
		mustFlush(t, other)
		if all := server.Objects(s3sinktest.Bucket); len(all) != 1 || !strings.HasPrefix(all[0].Key, "segment-logs/other/") {
			t.Errorf("a source's Flush stored %d objects", len(all))
		}
		mustFlush(t, sink)
		if n := len(lines(t, server, s3sinktest.Bucket)); n != 6 {
			t.Errorf("%d events stored, want 6", n)
		}
		if err := sink.Flush(t.Context()); err != nil || len(server.Objects(s3sinktest.Bucket)) != 2 {
			t.Errorf("a Flush of nothing: %v, %d objects", err, len(server.Objects(s3sinktest.Bucket)))
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("Flush waited %v for timers", waited)
		}
		mustClose(t, sink)
	})
}

// Given events that keep arriving, when Flush returns, then every event
// accepted before the call is stored.
func TestFlush_UnderLoad(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := 0; n < 20_000 && ctx.Err() == nil; n++ {
				if err := sink.TrackContext(t.Context(), numbered{Worker: w, N: n}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 20 {
		mark := fmt.Sprintf(`{"mark":%d}`, i)
		if err := sink.TrackLine([]byte(mark)); err != nil {
			t.Fatal(err)
		}
		before := sink.Stats().Accepted
		mustFlush(t, sink)
		if after := sink.Stats().Delivered; after < before {
			t.Errorf("%d delivered after a Flush of %d", after, before)
		}
		if !slices.Contains(lines(t, server, s3sinktest.Bucket), mark) {
			t.Errorf("%s is not stored after Flush", mark)
		}
		checkBooks(t, sink)
	}
	stop()
	wg.Wait()
	mustClose(t, sink)
}

// Given a long backoff or a parked upload, then Flush waits for neither.
func TestFlush_ShortensBackoff(t *testing.T) {
	t.Parallel()
	denied := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/denied") }
	for name, fault := range map[string]s3sinktest.Fault{
		"after an outage":          {Status: 503, Code: "SlowDown"},
		"after it was parked":      {Status: 403, Code: "AccessDenied"},
		"while others are refused": {Status: 403, Code: "AccessDenied", Match: denied},
	} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			sink := open(t, cfg)
			fault.Operation = "PutObject"
			server.Inject(fault)
			for i := range 4 {
				src, err := sink.Source(fmt.Sprint("denied", i))
				if err != nil {
					t.Fatal(err)
				}
				mustTrack(t, src, struct{}{})
			}
			time.Sleep(2*time.Hour + 7*time.Second) // sealed by age, then retried for two hours
			if fault.Match == nil {
				server.ClearFaults()
			}
			mustTrack(t, sink, struct{}{})
			good, err := sink.Source(s3sinktest.SourceID)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			mustFlush(t, good)
			if waited := time.Since(began); waited > time.Second { // the last failure may be very recent
				t.Errorf("%s: Flush waited %v", name, waited)
			}
			began = time.Now()
			server.ClearFaults()
			mustClose(t, sink)
			if waited := time.Since(began); waited > time.Second {
				t.Errorf("%s: Close waited %v", name, waited)
			}
		})
	}
}

// Given a bucket that denies uploads, when the ctx of Flush ends, then the error
// joins the deadline and the refusal. Err returns nil after the next probe of the
// fixed bucket.
func TestFlush_Parked(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied"})
		mustTrack(t, sink, struct{}{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := sink.Flush(ctx)
		var refused *s3sink.UploadError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &refused) || refused.Code != "AccessDenied" || refused.Status != 403 {
			t.Errorf("got %v, want the deadline joined with the refusal", err)
		}
		if s3sink.Retryable(err) {
			t.Error("retryable, but somebody must act first")
		}
		if got := sink.Err(); !errors.As(got, &refused) || refused.RequestID == "" {
			t.Errorf("Err is %v, want the refusal", got)
		}
		server.ClearFaults()
		time.Sleep(6 * time.Minute) // past the next probe
		if err := sink.Err(); err != nil {
			t.Errorf("Err after it was mended: %v", err)
		}
		mustFlush(t, sink)
		mustClose(t, sink)
	})
}

// Given a memory that is full because uploads are parked, then the error of
// Track has the reason.
func TestTrack_FullWhileParked(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory = 1 << 20
		cfg.MaxEventBytes = 100 << 10
		cfg.CompressionLevel = 1
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 404, Code: "NoSuchBucket"})
		r := rand.New(rand.NewPCG(1, 2))
		var err error
		for err == nil {
			err = sink.Track(map[string]string{"x": hex(r, 90<<10)})
			synctest.Wait()
		}
		var refused *s3sink.UploadError
		if !errors.Is(err, s3sink.ErrBufferFull) || !errors.As(err, &refused) || refused.Code != "NoSuchBucket" {
			t.Errorf("got %v, want ErrBufferFull with the refusal", err)
		}
		server.ClearFaults()
		mustClose(t, sink) // Close retries parked uploads at once
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		src, err := sink.Source("other")
		if err != nil {
			t.Fatal(err)
		}
		mustTrack(t, sink, struct{}{})
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := sink.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("Close waited %v", waited)
		}
		for name, err := range map[string]error{
			"Track":            sink.Track(struct{}{}),
			"TrackLine":        sink.TrackLine([]byte(`{}`)),
			"TrackContext":     sink.TrackContext(t.Context(), struct{}{}),
			"TrackLineContext": sink.TrackLineContext(t.Context(), []byte(`{}`)),
			"Source.Track":     src.Track(struct{}{}),
		} {
			if !errors.Is(err, s3sink.ErrClosed) || s3sink.Retryable(err) {
				t.Errorf("%s after Close: %v, want ErrClosed", name, err)
			}
		}
		if n := len(server.Objects(s3sinktest.Bucket)); n != 1 {
			t.Errorf("%d objects, want 1: nothing empty", n)
		}
	})
}

// When the ctx of Close ends before everything is delivered, then Close counts
// the dropped events.
func TestClose_CountsDroppedEvents(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Stall: true})
		for range 5 {
			mustTrack(t, sink, struct{}{})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := sink.Close(ctx)
		var lost *s3sink.CloseError
		if !errors.As(err, &lost) || lost.Delivered != 1 || lost.Dropped != 5 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want 1 delivered and 5 dropped at the deadline", err)
		}
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("Close took %v, want its context's 10s", waited)
		}
		if again := sink.Close(t.Context()); again != err || s3sink.Retryable(again) {
			t.Errorf("the second Close returned %v (retryable %t), want the same error for ever", again, s3sink.Retryable(again))
		}
		if err := sink.Flush(t.Context()); !errors.Is(err, s3sink.ErrClosed) {
			t.Errorf("Flush after events were dropped: %v, want ErrClosed", err)
		}
		checkBooks(t, sink)
	})
}

// Given callers that wait for room, when the sink is closed, then they return
// ErrClosed.
func TestClose_EndsWaitingCalls(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory = 1 << 20
		cfg.MaxEventBytes = 100 << 10
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
		for i := uint64(0); ; i++ {
			if err := sink.TrackLine(noise(i, 90<<10)); errors.Is(err, s3sink.ErrBufferFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		waiting := make(chan error, 1)
		go func() { waiting <- sink.TrackLineContext(t.Context(), noise(99, 90<<10)) }()
		synctest.Wait()
		began := time.Now()
		closed := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // S3 is tried each second
			defer cancel()
			closed <- sink.Close(ctx)
		}()
		if err := <-waiting; !errors.Is(err, s3sink.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("%v after %v, want ErrClosed at once", err, time.Since(began))
		}
		<-closed
	})
}

// Given a bucket that refuses uploads, also before Close, then the error of
// Close has the reason.
func TestClose_ReturnsReasonOfParking(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied"})
		mustTrack(t, sink, struct{}{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sink.Flush(ctx)
		server.ClearFaults()
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Stall: true}) // so that Close gets no new error
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := sink.Close(ctx)
		var refused *s3sink.UploadError
		if !errors.As(err, &refused) || refused.Code != "AccessDenied" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline and the refusal", err)
		}
	})
}

// Given concurrent calls of Track, Flush, Stats and Close, then no event is
// lost or stored twice, and no call blocks.
func TestClose_UnderLoad(t *testing.T) {
	t.Parallel()
	for range 5 {
		server, cfg := s3sinktest.New(t)
		cfg.MaxEventBytes = 1000
		cfg.MaxObjectBytes = 10_000
		cfg.MaxOpenPartitions = 3
		cfg.MaxMemory = 1 << 20
		sink := open(t, cfg)
		var took atomic.Int64
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					src, err := sink.Source(fmt.Sprint(n % 5))
					if err != nil {
						t.Error(err)
						return
					}
					err = src.TrackContext(t.Context(), numbered{w, n, strings.Repeat("x", n%500)})
					switch {
					case err == nil:
						took.Add(1)
					case errors.Is(err, s3sink.ErrClosed):
						return
					default:
						t.Error(err)
						return
					}
					if n%100 == 99 {
						checkBooks(t, sink)
					}
				}
			})
		}
		for range 3 {
			mustFlush(t, sink)
		}
		mustClose(t, sink)
		wg.Wait()
		if got := int64(len(lines(t, server, s3sinktest.Bucket))); got != took.Load() {
			t.Fatalf("%d stored, %d taken", got, took.Load())
		}
	}
}

// Given an answer that is lost after S3 has stored the object, then there is no
// second object.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		var uploaded []s3sink.Uploaded
		cfg.Hooks.Uploaded = func(u s3sink.Uploaded) { uploaded = append(uploaded, u) }
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", LoseResponse: true, Times: 3})
		for range 5 {
			mustTrack(t, sink, struct{}{})
			mustFlush(t, sink)
		}
		mustClose(t, sink)
		if got := len(lines(t, server, s3sinktest.Bucket)); got != 5 || server.StoredPuts() != 5 {
			t.Errorf("%d events in %d stored PUTs, want 5 and 5", got, server.StoredPuts())
		}
		if st := sink.Stats(); st.LostAnswers == 0 || st.Attempts <= 5 {
			t.Errorf("%+v: want lost answers counted", st)
		}
		existed := slices.ContainsFunc(uploaded, func(u s3sink.Uploaded) bool { return u.Existed })
		if len(uploaded) != 5 || !existed {
			t.Errorf("the hook saw %+v", uploaded)
		}
	})
}

// Given one event, then there is one key with one line, and the object has the
// documented bytes, headers and metadata.
func TestObject(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.Bucket += "/path/of/"
		cfg.Prefix = "/and/prefix"
		cfg.Encryption = s3sink.SSES3()
		sink := open(t, cfg)
		time.Sleep(1500 * time.Millisecond)
		if err := sink.TrackLine([]byte(`{"a":1}`)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, sink)
		all := server.Objects(s3sinktest.Bucket)
		if len(all) != 1 {
			t.Fatalf("%d objects", len(all))
		}
		o := all[0]
		form := regexp.MustCompile(`^path/of/and/prefix/segment-logs/test-source/946684800000/946684801500\.[0-9a-f]{12}\.\d+\.\d+\.\d+\.[0-9a-f-]{14}7[0-9a-f-]{21}\.gz$`)
		if !form.MatchString(o.Key) {
			t.Errorf("key %s", o.Key)
		}
		if o.ContentType != "application/gzip" || o.ContentEncoding != "" || o.SSE != "AES256" {
			t.Errorf("type %q, encoding %q, SSE %q", o.ContentType, o.ContentEncoding, o.SSE)
		}
		run := o.Metadata["s3sink-run"]
		delete(o.Metadata, "s3sink-run")
		want := map[string]string{
			"s3sink-events": "1", "s3sink-raw-bytes": "8", "s3sink-sequence": "1",
			"s3sink-first-received": "2000-01-01T00:00:01.500Z", "s3sink-last-received": "2000-01-01T00:00:01.500Z",
		}
		if !maps.Equal(o.Metadata, want) || len(run) != 36 {
			t.Errorf("metadata %v and run %q, want %v", o.Metadata, run, want)
		}
		for _, r := range server.Requests() {
			if r.Operation == "PutObject" && (r.Header.Get("X-Amz-Checksum-Crc32") != o.CRC32 || r.Header.Get("X-Amz-Trailer") != "") {
				t.Errorf("checksum header %q, want %q", r.Header.Get("X-Amz-Checksum-Crc32"), o.CRC32)
			}
		}
	})
}

// Given an id in use, then Source returns the same handle.
func TestSource_SameWhileInUse(t *testing.T) {
	t.Parallel()
	_, cfg := s3sinktest.New(t)
	sink := open(t, cfg)
	first, err := sink.Source("one")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := sink.Source("one"); err != nil || again != first {
		t.Errorf("%p and %p, %v: want one Source", first, again, err)
	}
	if first.ID() != "one" {
		t.Errorf("id %q", first.ID())
	}
	for name, id := range map[string]string{"empty": "", "too long": strings.Repeat("x", 257), "too long in a key": strings.Repeat("é", 127) + "/"} {
		var wrong *s3sink.ConfigError
		cfg := cfg
		cfg.Prefix = strings.Repeat("p", 300)
		sink := open(t, cfg)
		if _, err := sink.Source(id); !errors.As(err, &wrong) || wrong.Field != "SourceID" {
			t.Errorf("%s: %v, want a ConfigError", name, err)
		}
	}
}
