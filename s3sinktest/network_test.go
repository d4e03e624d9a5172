package s3sinktest_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink/s3sinktest"
)

func TestCutAfter(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		for i, after := range []int64{1, 50_000, 100_000, 200_000} {
			srv.ClearFaults()
			srv.Inject(s3sinktest.Fault{Operation: "PutObject", CutAfter: after, Status: 503})
			_, err := client.PutObject(t.Context(), put("key", strings.Repeat("x", 100_000)))
			if status, _ := failure(err); err == nil || status != 0 {
				t.Errorf("after %d: got %v, want no answer", after, err)
			}
			srv.ClearFaults()
			if requests := srv.Requests(); len(requests) != i+1 || requests[i].Status != 0 || srv.StoredPuts() != 0 {
				t.Errorf("after %d: recorded %+v, %d stored", after, requests[i], srv.StoredPuts())
			}
		}
		srv.Inject(s3sinktest.Fault{Operation: "AssumeRole", CutAfter: 1})
		_, err := stsClient(srv, userKeys).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(hop), RoleSessionName: aws.String("test")})
		if status, _ := failure(err); err == nil || status != 0 {
			t.Errorf("STS: got %v, want no answer", err)
		}
	})
}

// TestCutAfterReads sends a body bit by bit: the cut comes after as much of it
// as was asked for, and no sooner.
func TestCutAfterReads(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{CutAfter: 20})
		req := request{method: "PUT", path: "/events/key", body: strings.Repeat("x", 100)}.build(t, srv)
		body, writer := io.Pipe()
		req.Body = body
		client := srv.HTTPClient()
		done := make(chan error)
		go func() {
			_, err := client.Do(req)
			done <- err
		}()
		for range 2 {
			if len(srv.Requests()) != 0 {
				t.Error("cut too soon")
			}
			writer.Write(make([]byte, 10))
			synctest.Wait()
		}
		if len(srv.Requests()) != 1 {
			t.Error("not cut")
		}
		writer.CloseWithError(io.ErrUnexpectedEOF)
		if err := <-done; err == nil {
			t.Error("answered")
		}
	})
}

func TestReadRate(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		for _, test := range []struct {
			fault  s3sinktest.Fault
			size   int
			took   time.Duration
			status int
		}{
			{s3sinktest.Fault{ReadRate: 100}, 1000, 10 * time.Second, 200},
			{s3sinktest.Fault{ReadRate: 1}, 7, 7 * time.Second, 200},
			{s3sinktest.Fault{ReadRate: 1 << 20}, 0, 0, 200},
			{s3sinktest.Fault{ReadRate: 100, CutAfter: 500}, 1000, 5 * time.Second, 0},
			{s3sinktest.Fault{ReadRate: 100, Delay: time.Second, Status: 500}, 1000, 11 * time.Second, 500},
		} {
			srv.ClearFaults()
			srv.Inject(test.fault)
			start := time.Now()
			_, err := client.PutObject(t.Context(), put("key", strings.Repeat("x", test.size)))
			status, _ := failure(err)
			if err == nil {
				status = 200
			}
			if took := time.Since(start); took != test.took || status != test.status {
				t.Errorf("%+v: %d after %v, want %d after %v", test.fault, status, took, test.status, test.took)
			}
		}
	})
}

// TestReadRateEndsWithTheClient gives up before the server has read it all.
func TestReadRateEndsWithTheClient(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{ReadRate: 10, Times: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := s3Client(srv, userKeys).PutObject(ctx, put("key", strings.Repeat("x", 1000)))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// TestAnswerEarly gets an answer to a body that never comes.
func TestAnswerEarly(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown", AnswerEarly: true, Times: 1})
		srv.Inject(s3sinktest.Fault{Operation: "PutObject", AnswerEarly: true, Times: 1})
		client := srv.HTTPClient()
		for _, want := range []string{"503 SlowDown", "503 ServiceUnavailable"} {
			req := request{method: "PUT", path: "/events/key", body: "never"}.build(t, srv)
			body, writer := io.Pipe()
			req.Body = body
			got := send(t, client, req)
			if got.String() != want || got.header.Get("Connection") != "" && !strings.EqualFold(got.header.Get("Connection"), "close") {
				t.Errorf("got %v %v, want %s", got, got.header, want)
			}
			writer.Close()
		}
		if got := (request{method: "PUT", path: "/events/key", body: "body"}).send(t, srv); got.String() != "200" || srv.StoredPuts() != 1 {
			t.Errorf("afterwards: got %v, %d stored", got, srv.StoredPuts())
		}
	})
}

func TestCutAnswer(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{CutAnswer: true, Operation: "PutObject", Times: 1})
		srv.Inject(s3sinktest.Fault{CutAnswer: true, Operation: "GetObject", Times: 1})
		srv.Inject(s3sinktest.Fault{CutAnswer: true, Operation: "AssumeRole", Times: 1})
		srv.Inject(s3sinktest.Fault{CutAnswer: true, Operation: "HeadBucket", Times: 1, Status: 403})
		client := srv.HTTPClient()
		for _, test := range []struct {
			q      request
			status int
			body   string
		}{
			{request{method: "PUT", path: "/events/key", body: "abcd"}, 200, ""},
			{request{method: "GET", path: "/events/key"}, 200, "ab"},
			{request{method: "GET", path: "/events/key"}, 200, "abcd"},
			{stsRequest(map[string]string{"Action": "AssumeRole", "RoleArn": hop, "RoleSessionName": "test"}), 200, "<?xml"},
		} {
			resp, err := client.Do(test.q.build(t, srv))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			whole := test.body == "abcd"
			if resp.StatusCode != test.status || !bytes.HasPrefix(got, []byte(test.body)) || errors.Is(err, io.ErrUnexpectedEOF) == whole {
				t.Errorf("%s %s: got %d %q, %v", test.q.method, test.q.path, resp.StatusCode, got, err)
			}
		}
		if got := (request{method: "HEAD", path: "/events"}).send(t, srv); got.status != 403 {
			t.Errorf("HEAD: got %v", got)
		}
		if obj, ok := srv.Object(events, "key"); !ok || string(obj.Body) != "abcd" || srv.Requests()[0].Status != 200 {
			t.Errorf("stored %q, %t, recorded %+v", obj.Body, ok, srv.Requests()[0])
		}
	})
}

func TestEmptyAnswer(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Status: 403, Body: []byte{}})
		got := request{method: "GET", path: "/events/key"}.send(t, srv)
		if got.status != 403 || len(got.body) != 0 || got.header.Get("Content-Type") != "" {
			t.Errorf("got %v %v %q", got, got.header, got.body)
		}
	})
}

func TestRefuse(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		if _, err := client.PutObject(t.Context(), put("before", "body")); err != nil {
			t.Fatal(err)
		}
		srv.Refuse(true)
		// The client may still take the connection it had, once.
		if _, err := client.PutObject(t.Context(), put("down", "body")); err == nil {
			t.Error("stored while connections were refused")
		}
		_, err := client.PutObject(t.Context(), put("down", "body"))
		if status, _ := failure(err); status != 0 || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want ECONNREFUSED", err)
		}
		srv.Refuse(false)
		if _, err := client.PutObject(t.Context(), put("after", "body")); err != nil {
			t.Error(err)
		}
		if srv.StoredPuts() != 2 {
			t.Errorf("%d stored", srv.StoredPuts())
		}
	})
}

// TestRefuseOthers connects with a dialer that is not the server's own.
func TestRefuseOthers(t *testing.T) {
	t.Parallel()
	srv := s3sinktest.NewServer()
	defer srv.Close()
	srv.Refuse(true)
	client := &http.Client{Transport: &http.Transport{}}
	if resp, err := client.Get(srv.URL()); err == nil {
		resp.Body.Close()
		t.Errorf("got %v", resp.Status)
	}
}

// TestFreeze freezes a server with a connection, and thaws it.
func TestFreeze(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		for range 3 {
			if _, err := client.PutObject(t.Context(), put("key", "body")); err != nil {
				t.Fatal(err)
			}
			srv.Freeze(true)
			done := make(chan error)
			go func() {
				_, err := client.PutObject(t.Context(), put("key", "body"))
				done <- err
			}()
			srv.Freeze(false)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		srv.Freeze(true)
		go srv.Close()
		if _, err := client.PutObject(t.Context(), put("key", "body")); err == nil {
			t.Error("a frozen server that is closed answered")
		}
		srv.Close()
	})
}

func TestFrozenRequests(t *testing.T) {
	t.Parallel()
	for _, opts := range [][]s3sinktest.Option{{s3sinktest.InMemory()}, {s3sinktest.InMemory(), s3sinktest.TLS()}} {
		synctest.Test(t, func(t *testing.T) {
			srv := s3sinktest.NewServer(opts...)
			defer srv.Close()
			furnish(srv)
			warm := s3Client(srv, userKeys)
			if _, err := warm.PutObject(t.Context(), put("before", "body")); err != nil {
				t.Fatal(err)
			}

			// On a connection that is open and on a new one, nothing comes back.
			synctest.Wait() // until the server waits for the next request
			srv.Freeze(true)
			for _, client := range []*s3.Client{warm, s3Client(srv, userKeys)} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				_, err := client.PutObject(ctx, put("frozen", "body"))
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) || len(srv.Requests()) != 1 {
					t.Errorf("got %v and %d requests", err, len(srv.Requests()))
				}
			}
			srv.Freeze(false)

			// A request in progress is handled, and its answer waits for the thaw.
			srv.Inject(s3sinktest.Fault{Delay: time.Minute})
			start := time.Now()
			time.AfterFunc(time.Second, func() { srv.Freeze(true) })
			time.AfterFunc(time.Hour, func() {
				if _, ok := srv.Object(events, "slow"); !ok {
					t.Error("not stored during the freeze")
				}
				srv.Freeze(false)
			})
			if _, err := warm.PutObject(t.Context(), put("slow", "body")); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took != time.Hour {
				t.Errorf("answered after %v", took)
			}
		})
	}
}

// TestFreezeAndRefuse closes idle connections of a frozen server.
func TestFreezeAndRefuse(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := s3Client(srv, userKeys)
		if _, err := client.PutObject(t.Context(), put("key", "body")); err != nil {
			t.Fatal(err)
		}
		srv.Freeze(true)
		srv.Refuse(true)
		srv.Freeze(false)
		srv.Refuse(false)
		client = s3Client(srv, userKeys)
		if _, err := client.PutObject(t.Context(), put("key", "body")); err != nil {
			t.Error(err)
		}
	})
}

func TestUntrustedTLS(t *testing.T) {
	t.Parallel()
	for _, opts := range [][]s3sinktest.Option{{s3sinktest.UntrustedTLS()}, {s3sinktest.UntrustedTLS(), s3sinktest.InMemory()}} {
		synctestOrNot(t, len(opts) > 1, func(t *testing.T) {
			srv := s3sinktest.NewServer(opts...)
			defer srv.Close()
			furnish(srv)
			_, err := s3Client(srv, userKeys).PutObject(t.Context(), put("key", "body"))
			var unknown x509.UnknownAuthorityError
			if !errors.As(err, &unknown) || len(srv.Requests()) != 0 {
				t.Errorf("got %v and %d requests", err, len(srv.Requests()))
			}
		})
	}
}

// TestPlainAnswerToTLS speaks TLS to a server that does not.
func TestPlainAnswerToTLS(t *testing.T) {
	t.Parallel()
	srv := s3sinktest.NewServer()
	defer srv.Close()
	client := srv.HTTPClient()
	resp, err := client.Get(strings.Replace(srv.URL(), "http://", "https://", 1))
	if err == nil {
		resp.Body.Close()
		t.Errorf("got %v", resp.Status)
	}
}
