package s3sinktest_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/s3sink/s3sink/s3sinktest"
)

// TestSlowDown lets the SDK get through by trying again.
func TestSlowDown(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Operation: "PutObject", Times: 3, Status: 503, Code: "SlowDown", RetryAfter: 1500 * time.Millisecond})
		client := s3Client(srv, userKeys)
		_, err := client.PutObject(t.Context(), put("key", "body"), func(o *s3.Options) {
			o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 4 })
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range srv.Requests() {
			got = append(got, reply{status: r.Status, code: r.Code}.String())
			if r.Stored != (r.Status == 200) || r.Principal != user {
				t.Errorf("recorded %+v", r)
			}
		}
		if want := "503 SlowDown,503 SlowDown,503 SlowDown,200"; strings.Join(got, ",") != want || srv.StoredPuts() != 1 {
			t.Errorf("got %v and %d stored, want %s", got, srv.StoredPuts(), want)
		}
	})
}

// TestLostResponse stores an object without its client hearing of it.
func TestLostResponse(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Operation: "PutObject", Times: 1, LoseResponse: true})
		client := s3Client(srv, userKeys)
		in := put("key", "body")
		in.IfNoneMatch = aws.String("*")
		_, err := client.PutObject(t.Context(), in)
		if status, _ := failure(err); err == nil || status != 0 {
			t.Fatalf("got %v, want an error without an answer", err)
		}
		if obj, ok := srv.Object(events, "key"); !ok || string(obj.Body) != "body" {
			t.Errorf("stored %q, %t", obj.Body, ok)
		}

		in.Body = strings.NewReader("body")
		_, err = client.PutObject(t.Context(), in)
		if status, code := failure(err); status != 412 || code != "PreconditionFailed" {
			t.Errorf("again: got %v, want 412", err)
		}
		if obj, _ := srv.Object(events, "key"); obj.Writes != 1 || srv.StoredPuts() != 1 {
			t.Errorf("stored %d times, StoredPuts %d", obj.Writes, srv.StoredPuts())
		}
		if first := srv.Requests()[0]; first.Status != 200 || !first.Stored {
			t.Errorf("recorded %+v", first)
		}
	})
}

func TestLostConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Status: 500, LoseResponse: true})
		_, err := s3Client(srv, userKeys).PutObject(t.Context(), put("key", "body"))
		if status, _ := failure(err); err == nil || status != 0 || srv.StoredPuts() != 0 {
			t.Errorf("got %v, stored %d", err, srv.StoredPuts())
		}
	})
}

func TestFaultAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		identity := stsRequest(map[string]string{"Action": "GetCallerIdentity"})
		get := request{method: "GET", path: "/events/none"}
		for _, test := range []struct {
			name, want string
			fault      s3sinktest.Fault
			q          request
		}{
			{"s3 default", "503 ServiceUnavailable", s3sinktest.Fault{Status: 503}, get},
			{"s3", "400 KMS.DisabledException", s3sinktest.Fault{Status: 400, Code: "KMS.DisabledException"}, get},
			{"code alone", "503 SlowDown", s3sinktest.Fault{Code: "SlowDown"}, get},
			{"sts", "400 Throttling", s3sinktest.Fault{Operation: "GetCallerIdentity", Status: 400, Code: "Throttling"}, identity},
			{"sts default", "500 InternalServerError", s3sinktest.Fault{Status: 500}, identity},
			{"body", "502", s3sinktest.Fault{Status: 502, Body: []byte("<html>Bad Gateway</html>"), ContentType: "text/html"}, get},
			{"header", "301 PermanentRedirect", s3sinktest.Fault{Status: 301, Code: "PermanentRedirect",
				Header: http.Header{"X-Amz-Bucket-Region": {"eu-west-3"}}}, get},
			{"redirect", "307 TemporaryRedirect", s3sinktest.Fault{Status: 307, Header: http.Header{"Location": {"/"}}}, get},
			{"other operation", "404 NoSuchKey", s3sinktest.Fault{Operation: "PutObject", Status: 503}, get},
			{"no match", "404 NoSuchKey", s3sinktest.Fault{Match: func(r *http.Request) bool { return r.Method == "PUT" }, Status: 503}, get},
			{"delayed only", "404 NoSuchKey", s3sinktest.Fault{Delay: time.Millisecond}, get},
		} {
			srv.ClearFaults()
			srv.Inject(test.fault)
			got := test.q.send(t, srv)
			if got.String() != test.want {
				t.Errorf("%s: got %v, want %s\n%s", test.name, got, test.want, got.body)
			}
			if test.fault.Body != nil && (string(got.body) != string(test.fault.Body) || got.header.Get("Content-Type") != "text/html") {
				t.Errorf("%s: got %s %s", test.name, got.header.Get("Content-Type"), got.body)
			}
			for name := range test.fault.Header {
				if got.header.Get(name) != test.fault.Header.Get(name) {
					t.Errorf("%s: %s is %q", test.name, name, got.header.Get(name))
				}
			}
		}
	})
}

// TestFaultOrder takes the first fault that matches and is left.
func TestFaultOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		isKey := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/key") }
		srv.Inject(s3sinktest.Fault{Times: 2, Status: 500, Match: isKey})
		srv.Inject(s3sinktest.Fault{Times: 1, Status: 502})
		srv.Inject(s3sinktest.Fault{Status: 504})
		for i, want := range []struct {
			path   string
			status int
		}{{"/events/other", 502}, {"/events/key", 500}, {"/events/other", 504}, {"/events/key", 500}, {"/events/key", 504}, {"/events/key", 504}} {
			if got := (request{method: "GET", path: want.path}).send(t, srv); got.status != want.status {
				t.Errorf("request %d for %s: got %d, want %d", i, want.path, got.status, want.status)
			}
		}
		srv.ClearFaults()
		if got := (request{method: "GET", path: "/events/key"}).send(t, srv); got.status != 404 {
			t.Errorf("after ClearFaults: got %d", got.status)
		}
	})
}

func TestMatchReadsTheForm(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Status: 503, Match: func(r *http.Request) bool {
			return r.PostFormValue("RoleArn") == hop
		}})
		q := stsRequest(map[string]string{"Action": "AssumeRole", "RoleArn": hop, "RoleSessionName": "test"})
		if got := q.send(t, srv); got.status != 503 {
			t.Errorf("got %v", got)
		}
		if got := stsRequest(map[string]string{"Action": "GetCallerIdentity"}).send(t, srv); got.status != 200 {
			t.Errorf("another request: got %v", got)
		}
	})
}

func TestStallEndsWithTheClient(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		arrived := make(chan struct{})
		srv.Inject(s3sinktest.Fault{Stall: true, Match: func(*http.Request) bool { close(arrived); return true }})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		_, err := s3Client(srv, userKeys).PutObject(ctx, put("key", "body"))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		srv.Close() // waits for the handler
		if got := srv.Requests(); len(got) != 1 || got[0].Status != 0 || got[0].Stored || srv.StoredPuts() != 0 {
			t.Errorf("recorded %+v", got)
		}
	})
}

func TestDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Delay: time.Minute})
		client := s3Client(srv, userKeys)
		start := time.Now()
		if _, err := client.PutObject(t.Context(), put("key", "body")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := client.PutObject(ctx, put("late", "body"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, ok := srv.Object(events, "late"); ok {
			t.Error("stored after its client had left")
		}
	})
}
