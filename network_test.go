package s3sink_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// trouble is a failure between a sink and S3 that lasts an hour. No attempt
// succeeds in that time.
type trouble struct {
	begin, end func(*s3sinktest.Server, *network)
	says       string        // the error of an attempt
	takes      time.Duration // least duration of an attempt
}

// network is the network between a sink and its server.
type network struct {
	next http.RoundTripper
	base *http.Transport

	mu    sync.Mutex
	dial  error // the error of every dial
	hang  bool  // every dial
	dials int
	hosts map[string]bool // scheme and host of all requests
}

// over puts a network between cfg's sink and the server.
func over(cfg *s3sink.Config) *network {
	base := cfg.HTTPClient.Transport.(*http.Transport)
	n := &network{next: base, base: base, hosts: map[string]bool{}}
	dial := base.DialContext
	base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.mu.Lock()
		n.dials++
		err, hang := n.dial, n.hang
		n.mu.Unlock()
		if hang {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		return dial(ctx, network, addr)
	}
	cfg.HTTPClient.Transport = n
	return n
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.hosts[r.URL.Scheme+"://"+r.URL.Host] = true
	n.mu.Unlock()
	return n.next.RoundTrip(r)
}

// breaks closes the idle connections, and makes every new dial fail or hang.
func (n *network) breaks(err error, hang bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dial, n.hang = err, hang
	n.base.CloseIdleConnections()
}

// Given any failure between the sink and S3 for an hour, then nothing is
// parked, no attempt hangs, the error names the failure, and afterwards the
// object is stored once and complete. The object is larger than any network
// buffer.
func TestNetwork_TransientFailures(t *testing.T) {
	t.Parallel()
	fault := func(f s3sinktest.Fault) func(*s3sinktest.Server, *network) {
		f.Operation = "PutObject"
		return func(s *s3sinktest.Server, _ *network) { s.Inject(f) }
	}
	clear := func(s *s3sinktest.Server, _ *network) { s.ClearFaults() }
	noHost := &net.DNSError{Err: "no such host", Name: "s3.s3sink.test", IsNotFound: true}
	// 300 KiB at MinUploadRate take 4.7 s, in addition to the 30 s that every
	// attempt has.
	const deadline = 34 * time.Second
	for name, tt := range map[string]trouble{
		"refused": {
			begin: func(s *s3sinktest.Server, _ *network) { s.Refuse(true) },
			end:   func(s *s3sinktest.Server, _ *network) { s.Refuse(false) },
			says:  "connection refused",
		},
		"half-open": {
			begin: func(s *s3sinktest.Server, _ *network) { s.Freeze(true) },
			end:   func(s *s3sinktest.Server, _ *network) { s.Freeze(false) },
			says:  "deadline exceeded", takes: deadline,
		},
		"name not found": {
			begin: func(_ *s3sinktest.Server, n *network) { n.breaks(noHost, false) },
			end:   func(_ *s3sinktest.Server, n *network) { n.breaks(nil, false) },
			says:  "lookup s3.s3sink.test: no such host",
		},
		"name of a dead machine": {
			begin: func(_ *s3sinktest.Server, n *network) { n.breaks(nil, true) },
			end:   func(_ *s3sinktest.Server, n *network) { n.breaks(nil, false) },
			says:  "deadline exceeded", takes: deadline,
		},
		"reset in the body":         {fault(s3sinktest.Fault{CutAfter: 100 << 10}), clear, "request send failed", 0},
		"slower than MinUploadRate": {fault(s3sinktest.Fault{ReadRate: 4 << 10}), clear, "deadline exceeded", deadline},
		"no answer":                 {fault(s3sinktest.Fault{Stall: true}), clear, "deadline exceeded", deadline},
		"answer cut off":            {fault(s3sinktest.Fault{Status: 503, Code: "SlowDown", CutAnswer: true}), clear, "EOF", 0},
		"no answer, but stored":     {fault(s3sinktest.Fault{LoseResponse: true}), clear, "EOF", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) { tt.test(t, server, cfg) })
		})
	}
}

func (tt trouble) test(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
	way := over(&cfg)
	var log strings.Builder
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	var failed []s3sink.Attempt
	cfg.Hooks.Attempt = func(a s3sink.Attempt) {
		if a.Err != nil {
			failed = append(failed, a)
		}
	}
	sink := open(t, cfg)
	mustTrack(t, sink, struct{}{})
	mustFlush(t, sink) // a session, a connection

	tt.begin(server, way)
	event := noise(1, 300<<10) // random, so it does not compress
	if err := sink.TrackLine(event); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5*time.Minute + 20*time.Minute)
	if st := sink.Stats(); st.Delivered != 1 || !s3sink.Retryable(sink.Err()) {
		t.Errorf("%+v, Err %v; want it waiting and not parked", st, sink.Err())
	}
	tt.end(server, way)
	way.mu.Lock()
	dials := way.dials
	way.mu.Unlock()
	time.Sleep(5 * time.Minute)
	if st := sink.Stats(); st.Delivered != 2 {
		t.Errorf("%+v: want it delivered", st)
	}
	mustClose(t, sink)
	if got := lines(t, server, s3sinktest.Bucket); len(got) != 2 || !slices.Contains(got, string(event)) {
		t.Errorf("%d lines are stored, or others", len(got))
	}
	if len(failed) < 10 {
		t.Errorf("%d attempts failed in 20 minutes", len(failed))
	}
	if n := strings.Count(log.String(), "uploads fail again and again"); n < 3 || n > 4 || strings.Count(log.String(), "\n") != n {
		t.Errorf("log %.2000s; want one warning each 5 minutes", log.String())
	}
	for _, a := range failed {
		var e *s3sink.UploadError
		if !errors.As(a.Err, &e) || e.Status != 0 && e.Status != 503 || !s3sink.Retryable(a.Err) || !strings.Contains(a.Err.Error(), tt.says) {
			t.Fatalf("an attempt ended with %v, want one that says %s", a.Err, tt.says)
		}
		if a.Duration < tt.takes || a.Duration > tt.takes+time.Second {
			t.Fatalf("an attempt took %v, want %v", a.Duration, tt.takes)
		}
	}
	if dials < len(failed) { // every attempt resolves the name again, and none uses a failed connection
		t.Errorf("%d connections for %d attempts", dials, len(failed))
	}
}

// Given a connection that is slow, but not slower than MinUploadRate, then the
// upload succeeds in one attempt.
func TestNetwork_SlowConnection(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Inject(s3sinktest.Fault{Operation: "PutObject", ReadRate: s3sink.DefaultMinUploadRate})
		sink := open(t, cfg)
		for i := range uint64(4) {
			if err := sink.TrackLine(noise(i, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		mustFlush(t, sink)
		// The upload takes its time. The connection buffers the whole body, so
		// the sink cannot tell whether the attempt hangs, except by spare
		// attempts. Each of them lasts 10 s.
		if st := sink.Stats(); st.Attempts > 8 || time.Since(began) < 30*time.Second || time.Since(began) > 66*time.Second {
			t.Errorf("%d attempts in %v, want 8 at most and one that takes its time", st.Attempts, time.Since(began))
		}
		mustClose(t, sink)
	})
}

// Given a redirect from S3 or STS to another host, then neither events nor
// signatures are sent there.
func TestNetwork_RedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, operation := range []string{"PutObject", "AssumeRole"} {
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				way := over(&cfg)
				cfg.HTTPClient.CheckRedirect = nil // the client would follow redirects: the sink must not
				server.Inject(s3sinktest.Fault{Operation: operation, Status: status, Header: http.Header{"Location": {"http://elsewhere.s3sink.test/"}}})
				sink := open(t, cfg)
				mustTrack(t, sink, struct{}{})
				time.Sleep(62 * time.Minute) // between two probes
				if st := sink.Stats(); st.Delivered != 0 || st.Attempts == 0 {
					t.Errorf("%d for %s: %+v", status, operation, st)
				}
				server.ClearFaults()
				mustClose(t, sink)
				if len(way.hosts) != 1 || !way.hosts[server.URL()] {
					t.Errorf("%d for %s: requests went to %v", status, operation, way.hosts)
				}
			})
		}
	}
}

// Given a server that refuses before it has read the body, then the refusal is
// read, whatever the size of the body. With the SDK's Expect header it would be
// lost.
func TestNetwork_AnswerBeforeBody(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]s3sinktest.Option{"in memory": {s3sinktest.InMemory()}, "TCP": nil, "TLS": {s3sinktest.TLS()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cfg := s3sinktest.New(t, opts...)
			server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied", AnswerEarly: true})
			refused := make(chan error, 1)
			cfg.Hooks.Attempt = func(a s3sink.Attempt) {
				select {
				case refused <- a.Err:
				default:
				}
			}
			sink := open(t, cfg)
			for i := range uint64(5) {
				if err := sink.TrackLine(noise(i, 1<<20)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { sink.Flush(ctx) })
			err := <-refused
			var e *s3sink.UploadError
			if !errors.As(err, &e) || e.Status != 403 || e.Code != "AccessDenied" || s3sink.Retryable(err) {
				t.Errorf("the attempt ended with %v, want the refusal", err)
			}
			cancel()
			wg.Wait()
			server.ClearFaults()
			mustClose(t, sink)
			for _, r := range server.Requests() {
				if expect := r.Header.Get("Expect"); expect != "" {
					t.Errorf("%s of %d bytes: Expect: %s", r.Operation, r.ContentLength, expect)
				}
			}
		})
	}
}

// Given a server without a valid certificate, then nothing is sent to it,
// nothing is sent in plaintext, and the error has the reason.
func TestNetwork_UntrustedServer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		opts   []s3sinktest.Option
		change func(*s3sink.Config, *http.Transport)
		says   string
	}{
		"unknown authority": {
			[]s3sinktest.Option{s3sinktest.TLS()},
			func(_ *s3sink.Config, tr *http.Transport) { tr.TLSClientConfig.RootCAs = x509.NewCertPool() },
			"certificate signed by unknown authority",
		},
		"expired": {
			[]s3sinktest.Option{s3sinktest.TLS()},
			func(_ *s3sink.Config, tr *http.Transport) {
				tr.TLSClientConfig.Time = func() time.Time { return time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC) }
			},
			"certificate has expired",
		},
		"another host's": {
			[]s3sinktest.Option{s3sinktest.TLS()},
			func(c *s3sink.Config, _ *http.Transport) {
				c.Endpoint, c.STSEndpoint = "https://s3.other.test", "https://s3.other.test"
			},
			"certificate is valid for",
		},
		"speaks http": {
			nil,
			func(c *s3sink.Config, _ *http.Transport) {
				c.Endpoint, c.STSEndpoint = "https://s3.s3sink.test", "https://s3.s3sink.test"
			},
			"server gave HTTP response to HTTPS client",
		},
	} {
		bubbleWith(t, tt.opts, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			tt.change(&cfg, cfg.HTTPClient.Transport.(*http.Transport))
			way := over(&cfg)
			var last error
			cfg.Hooks.Attempt = func(a s3sink.Attempt) {
				if !errors.Is(a.Err, context.Canceled) {
					last = a.Err
				}
			}
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			time.Sleep(15 * time.Minute)
			if st := sink.Stats(); st.Delivered != 0 || st.Attempts == 0 || st.Attempts > 4 {
				t.Errorf("%s: %+v", name, st)
			}
			if err := sink.Err(); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: Err %v, want one that says %s", name, err, tt.says)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			sink.Close(ctx)
			if last == nil || !strings.Contains(last.Error(), tt.says) {
				t.Errorf("%s: %v, want an error that says %s", name, last, tt.says)
			}
			if n := len(server.Requests()); n > 0 {
				t.Errorf("%s: the server understood %d requests", name, n)
			}
			for host := range way.hosts {
				if !strings.HasPrefix(host, "https://") {
					t.Errorf("%s: a request to %s", name, host)
				}
			}
		})
	}
}
