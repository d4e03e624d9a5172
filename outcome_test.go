package s3sink_test

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

var update = flag.Bool("update", false, "write what the tests know into the pages that show it")

// Classes of answers, with the names that docs/outcomes.md gives them.
const (
	done      = "done"
	transient = "transient"
	refresh   = "refresh"
	skew      = "skew"
	elsewhere = "elsewhere"
	parked    = "parked"
	integrity = "integrity"
)

// outcome is one row of the table in docs/outcomes.md.
type outcome struct {
	answer string // description of the answer of S3
	class  string
	means  string // cause, and the action if an operator must act
	fault  s3sinktest.Fault
	status int               // status in UploadError; 0: the fault's
	code   string            // code in UploadError; "": the fault's, noCode: none
	create s3sink.CreateOnly // On unless set
	takes  time.Duration     // duration of each attempt; 0: the answer comes at once
	tries  int               // attempts until the object is stored; 0: one
}

const page = "<html><head><title>Error</title></head><body><h1>A proxy's page</h1></body></html>"

func says(status int, code string) s3sinktest.Fault {
	return s3sinktest.Fault{Status: status, Code: code}
}

func sends(status int, body string) s3sinktest.Fault {
	return s3sinktest.Fault{Status: status, Body: []byte(body), ContentType: "text/html"}
}

func redirects(status int, code string) s3sinktest.Fault {
	return s3sinktest.Fault{Status: status, Code: code, Header: http.Header{"Location": {"http://elsewhere.s3sink.test/key"}}}
}

// outcomes is the table. Every attempt gets the answer of the row until the
// fault is cleared.
var outcomes = []outcome{
	{answer: "2xx", class: done, means: "stored"},
	{answer: "412 on a repeat, with `CreateOnly`", class: done, tries: 2, fault: s3sinktest.Fault{LoseResponse: true, Times: 1},
		means: "an earlier attempt stored the object and its answer was lost; no other writer has our keys"},

	{answer: "no answer: the connection broke", class: transient, fault: s3sinktest.Fault{Status: 200, LoseResponse: true}, means: "the network, or S3 took a server out of service"},
	{answer: "no answer by the attempt's deadline", class: transient, fault: s3sinktest.Fault{Stall: true}, takes: 30 * time.Second,
		means: "the deadline is 30 s and the object's size at `MinUploadRate`"},
	{answer: "500 InternalError", class: transient, fault: says(500, "InternalError"), means: "S3 asks for a repeat"},
	{answer: "502", class: transient, fault: sends(502, page), means: "a proxy failed"},
	{answer: "503 SlowDown", class: transient, fault: says(503, "SlowDown"), means: "too many requests for the prefix; the sink sends fewer at once until it ends"},
	{answer: "503 ServiceUnavailable", class: transient, fault: says(503, "ServiceUnavailable"), means: "S3 asks for a repeat"},
	{answer: "504", class: transient, fault: sends(504, ""), means: "a proxy failed"},
	{answer: "429", class: transient, fault: says(429, "TooManyRequests"), means: "throttling by stores other than AWS"},
	{answer: "400 RequestTimeout", class: transient, fault: says(400, "RequestTimeout"), means: "the body arrived too slowly"},
	{answer: "400 IncompleteBody", class: transient, fault: says(400, "IncompleteBody"), means: "the connection broke on the way to S3"},
	{answer: "400 ThrottlingException", class: transient, fault: says(400, "ThrottlingException"), means: "too many requests to KMS; a bucket key helps, see `SSEKMS`"},
	{answer: "200 with an error in its body", class: transient, fault: sends(200, "<Error><Code>InternalError</Code></Error>"), status: 500, code: "InternalError", means: "S3 failed after it had begun to answer"},
	{answer: "200 without an ETag", class: transient, fault: sends(200, page), status: 200, code: noCode, means: "the answer is not from S3: a login page of the network, or a proxy"},
	{answer: "409 ConditionalRequestConflict", class: transient, fault: says(409, "ConditionalRequestConflict"), means: "S3 is still storing an earlier attempt, which had ended here"},
	{answer: "409 OperationAborted", class: transient, fault: says(409, "OperationAborted"), means: "the bucket is being changed"},
	{answer: "412 without `CreateOnly`", class: transient, fault: says(412, "PreconditionFailed"), create: s3sink.CreateOnlyOff, means: "no condition was sent, so the answer says nothing about the object"},
	{answer: "412 of a proxy", class: transient, fault: sends(412, page), means: "S3 answers `PreconditionFailed` in XML, so this answer says nothing about the object"},
	{answer: "any other answer of a proxy", class: transient, fault: sends(418, page), means: "unknown; the key is fixed, so a repeat is harmless"},

	{answer: "400 ExpiredToken", class: refresh, fault: says(400, "ExpiredToken"), means: "the session ended early"},
	{answer: "400 InvalidToken", class: refresh, fault: says(400, "InvalidToken"), means: "the session was revoked"},
	{answer: "403 InvalidAccessKeyId, of a session", class: refresh, fault: says(403, "InvalidAccessKeyId"), means: "the role was deleted, and perhaps created again; with access keys the class is parked: they were deleted"},
	{answer: "400 TokenRefreshRequired", class: refresh, fault: says(400, "TokenRefreshRequired"), means: "the session must be renewed"},

	{answer: "403 RequestTimeTooSkewed", class: skew, fault: says(403, "RequestTimeTooSkewed"), means: "this machine's clock is wrong by more than 15 minutes"},
	{answer: "400 RequestExpired", class: skew, fault: says(400, "RequestExpired"), means: "as above"},

	{answer: "301 PermanentRedirect, if `Region` is not set", class: elsewhere, fault: redirects(301, "PermanentRedirect"), means: "the bucket was deleted and created again in another region"},
	{answer: "400 AuthorizationHeaderMalformed, if `Region` is not set", class: elsewhere, fault: says(400, "AuthorizationHeaderMalformed"), means: "as above"},

	{answer: "403 AccessDenied", class: parked, fault: says(403, "AccessDenied"), means: "allow `s3:PutObject` on the prefix, and the bucket's KMS key; see README"},
	{answer: "403 SignatureDoesNotMatch", class: parked, fault: says(403, "SignatureDoesNotMatch"), means: "the secret key is wrong, or a proxy changes requests"},
	{answer: "403 AllAccessDisabled", class: parked, fault: says(403, "AllAccessDisabled"), means: "AWS has blocked the bucket or its account"},
	{answer: "403 without a code", class: parked, fault: sends(403, page), code: "Forbidden", means: "a proxy refused"},
	{answer: "403 with an empty body", class: parked, fault: sends(403, ""), code: "Forbidden", means: "as above"},
	{answer: "403 with XML that names no code", class: parked, fault: sends(403, "<Error><Message>no</Message></Error>"), code: "UnknownError", means: "as above"},
	{answer: "403 with broken XML", class: parked, fault: sends(403, `<?xml version="1.0"?><Error><Code>Acc`), code: noCode, means: "as above"},
	{answer: "403 with 2 MiB of text", class: parked, fault: sends(403, strings.Repeat(page, 2<<20/len(page))), code: "Forbidden", means: "as above; 1 MiB of it is read"},
	{answer: "401", class: parked, fault: says(401, "Unauthorized"), means: "a proxy wants a password"},
	{answer: "404 NoSuchBucket", class: parked, fault: says(404, "NoSuchBucket"), means: "create the bucket, or correct `Config.Bucket`"},
	{answer: "301 PermanentRedirect", class: parked, fault: redirects(301, "PermanentRedirect"), means: "`Config.Region` is not the bucket's region; the error names the right one if S3 does"},
	{answer: "307 TemporaryRedirect", class: parked, fault: redirects(307, "TemporaryRedirect"), means: "the bucket is new in its region; redirects are not followed, because events would go to any host that they name"},
	{answer: "308", class: parked, fault: redirects(308, "PermanentRedirect"), means: "as 301"},
	{answer: "400 AuthorizationHeaderMalformed", class: parked, fault: says(400, "AuthorizationHeaderMalformed"), means: "`Config.Region` is not the bucket's region"},
	{answer: "400 IllegalLocationConstraintException", class: parked, fault: says(400, "IllegalLocationConstraintException"), means: "`Config.Region` is not the bucket's region"},
	{answer: "400 KMS.DisabledException", class: parked, fault: says(400, "KMS.DisabledException"), means: "enable the KMS key"},
	{answer: "400 KMS.NotFoundException", class: parked, fault: says(400, "KMS.NotFoundException"), means: "the KMS key is in another region, or deleted"},
	{answer: "403 KMS.AccessDeniedException", class: parked, fault: says(403, "KMS.AccessDeniedException"), means: "allow `kms:GenerateDataKey` on the key"},
	{answer: "500 KMS.KMSInvalidStateException", class: parked, fault: says(500, "KMS.KMSInvalidStateException"), means: "the KMS key waits for its deletion"},
	{answer: "400 AccessControlListNotSupported", class: parked, fault: says(400, "AccessControlListNotSupported"), means: "the bucket has no ACLs: leave `Config.ACL` empty"},
	{answer: "400 InvalidStorageClass", class: parked, fault: says(400, "InvalidStorageClass"), means: "the store does not have `Config.StorageClass`"},
	{answer: "400 InvalidRequest", class: parked, fault: says(400, "InvalidRequest"), means: "the bucket does not accept a setting of the Config"},
	{answer: "400 MalformedXML", class: parked, fault: says(400, "MalformedXML"), means: "as above"},
	{answer: "400 EntityTooLarge", class: parked, fault: says(400, "EntityTooLarge"), means: "the limit of the store is below `Config.MaxObjectBytes`"},
	{answer: "413 of a proxy", class: parked, fault: sends(413, page), code: "RequestEntityTooLarge", means: "as above"},
	{answer: "405 MethodNotAllowed", class: parked, fault: says(405, "MethodNotAllowed"), means: "the server is not S3"},
	{answer: "411 MissingContentLength", class: parked, fault: says(411, "MissingContentLength"), means: "a proxy changes requests"},
	{answer: "501 NotImplemented", class: parked, fault: says(501, "NotImplemented"), means: "the store does not know a header, perhaps `If-None-Match`: see `Config.CreateOnly`"},

	{answer: "400 BadDigest", class: integrity, fault: says(400, "BadDigest"), means: "the bytes changed in transit"},
	{answer: "400 XAmzContentSHA256Mismatch", class: integrity, fault: says(400, "XAmzContentSHA256Mismatch"), means: "as above"},
	{answer: "400 XAmzContentChecksumMismatch", class: integrity, fault: says(400, "XAmzContentChecksumMismatch"), means: "as above"},
}

// Given an answer of the table for every attempt, then the sink acts by its
// class for as long as it lasts, and sends the same bytes with the same key.
// When S3 works again, the object is stored once.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, o := range outcomes {
		t.Run(o.answer, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) { o.test(t, server, cfg) })
		})
	}
}

func (o outcome) test(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
	attempts := new(recorder)
	server.Inject(attempts.fault())
	var log strings.Builder
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	cfg.CreateOnly = cmp.Or(o.create, s3sink.CreateOnlyOn)
	cfg.MaxObjectEvents = 1
	var failed, toldParked []*s3sink.UploadError
	var uploaded []s3sink.Uploaded
	cfg.Hooks = s3sink.Hooks{
		Attempt: func(a s3sink.Attempt) {
			var e *s3sink.UploadError
			if errors.As(a.Err, &e) {
				failed = append(failed, e)
			}
		},
		Parked:   func(p s3sink.Parked) { toldParked = append(toldParked, p.Err) },
		Uploaded: func(u s3sink.Uploaded) { uploaded = append(uploaded, u) },
	}
	if o.class == elsewhere {
		likeAWS(&cfg)
	}
	o.fault.Operation = "PutObject"
	if o.class != done || o.tries > 0 {
		server.Inject(o.fault)
	}
	sink := open(t, cfg)
	mustTrack(t, sink, struct{}{})
	time.Sleep(outage)
	o.checkErr(t, sink.Err())
	if st := sink.Stats(); (st.UploadError == nil) != (o.class == done) || st.FailingSince.IsZero() != (o.class == done) {
		t.Errorf("after %v Stats says %v since %v", outage, st.UploadError, st.FailingSince)
	}
	server.ClearFaults()
	server.Inject(attempts.fault())
	time.Sleep(s3sink.DefaultRetryParked)
	if err, st := sink.Err(), sink.Stats(); err != nil || st.UploadError != nil || !st.FailingSince.IsZero() {
		t.Errorf("S3 works again, but Err is %v, and Stats says %v since %v", err, st.UploadError, st.FailingSince)
	}
	all, st := attempts.seen(), sink.Stats()
	if st.Delivered != 1 || st.Attempts != int64(len(all)) {
		t.Errorf("%+v, and %d attempts were seen", st, len(all))
	}
	mustClose(t, sink)

	if n := len(lines(t, server, s3sinktest.Bucket)); n != 1 || server.StoredPuts() != 1 {
		t.Errorf("%d lines in %d stored PUTs, want 1 and 1", n, server.StoredPuts())
	}
	o.checkTimes(t, all)
	for _, a := range all {
		if a.key != all[0].key || a.body != all[0].body {
			t.Errorf("an attempt sent other bytes, or to %s instead of %s", a.key, all[0].key)
		}
	}
	for _, e := range failed {
		o.checkError(t, e)
	}
	if len(failed) != len(all)-1 || len(uploaded) != 1 || uploaded[0].Attempts != len(all) {
		t.Errorf("%d attempts; the hooks were told of %d that failed, and %+v", len(all), len(failed), uploaded)
	}
	if lost := o.class == done && o.tries > 1; uploaded[0].Existed != lost || st.LostAnswers != map[bool]int64{true: 1}[lost] {
		t.Errorf("existed: %t, answers lost: %d", uploaded[0].Existed, st.LostAnswers)
	}
	warnings := strings.Count(log.String(), "uploads are parked")
	if want := o.parks(); len(toldParked) != want || warnings != want {
		t.Errorf("parked %d times, %d warnings; want %d of each:\n%s", len(toldParked), warnings, want, log.String())
	}
	if facts := fmt.Sprintf("status=%d code=%s ", o.fault.Status, cmp.Or(o.wantCode(), `""`)); warnings > 0 && !strings.Contains(log.String(), facts) {
		t.Errorf("the log does not say %s:\n%s", facts, log.String())
	}
}

// outage is how long S3 gives the answer of a row: long enough for two probes
// of a parked object, and for some 18 backoffs.
const outage = 12 * time.Minute

const noCode = "none"

func (o outcome) wantCode() string {
	if o.code == noCode {
		return ""
	}
	return cmp.Or(o.code, o.fault.Code)
}

// parks returns how often an object is parked during the outage.
func (o outcome) parks() int {
	switch o.class {
	case refresh, skew, elsewhere, parked:
		return 3
	}
	return 0
}

func (o outcome) checkErr(t *testing.T, err error) {
	t.Helper()
	if o.class == done {
		if err != nil {
			t.Errorf("Err is %v, but the object is stored", err)
		}
		return
	}
	var refused *s3sink.UploadError
	if !errors.As(err, &refused) || s3sink.Retryable(err) != (o.parks() == 0) {
		t.Fatalf("Err is %v (retryable %t), want the answer of the last attempt", err, s3sink.Retryable(err))
	}
	o.checkError(t, refused)
}

func (o outcome) checkError(t *testing.T, e *s3sink.UploadError) {
	t.Helper()
	status, code := cmp.Or(o.status, o.fault.Status), o.wantCode()
	if o.fault.LoseResponse {
		status = 0
	}
	if e.Status != status || status != 0 && (e.RequestID == "" || code != "" && e.Code != code) {
		t.Fatalf("status %d, code %q, request %q; want %d %q", e.Status, e.Code, e.RequestID, status, code)
	}
	if text := e.Error(); status != 0 && !strings.Contains(text, strings.TrimSpace(fmt.Sprintf("status %d %s", status, code))) || len(text) > 1000 {
		t.Fatalf("the error says %.2000s", text)
	}
}

// checkTimes compares the times of the attempts with the schedule of the class.
func (o outcome) checkTimes(t *testing.T, all []attempt) {
	t.Helper()
	at := func(i int) time.Duration { return all[i].time.Sub(all[0].time) }
	switch o.class {
	case done:
		if len(all) != max(o.tries, 1) {
			t.Errorf("%d attempts, want %d", len(all), max(o.tries, 1))
		}
	case transient, integrity:
		for i := 1; i < len(all); i++ {
			most := min(time.Minute, 200*time.Millisecond<<min(i-1, 20))
			const size = time.Millisecond // more than 33 bytes add to the deadline
			if waited := at(i) - at(i-1) - o.takes; waited <= 0 || waited > most+size {
				t.Errorf("waited %v after failure %d, want a backoff of up to %v", waited, i, most)
			}
		}
		if least := int(outage / (time.Minute + o.takes)); len(all) <= least {
			t.Errorf("%d attempts, want more than %d", len(all), least)
		}
	default:
		each := map[string]int{parked: 1, refresh: 2, skew: 2, elsewhere: 2}[o.class] // attempts per probe
		if want := o.parks()*each + 1; len(all) != want {
			t.Fatalf("%d attempts, want %d", len(all), want)
		}
		for i, a := range all {
			if want := time.Duration(i/each) * s3sink.DefaultRetryParked; at(i) != want {
				t.Errorf("attempt %d after %v, want %v", i+1, at(i), want)
			}
			if i > 0 && (a.session == all[i-1].session) == (o.class == refresh) {
				t.Errorf("attempt %d: signed by %s after %s", i+1, a.session, all[i-1].session)
			}
		}
	}
}

// Given an answer that an immediate retry resolves, then the log has no
// warning.
func TestOutcomes_ImmediateRetry(t *testing.T) {
	t.Parallel()
	for _, o := range outcomes {
		if o.class != refresh && o.class != skew && o.class != elsewhere {
			continue
		}
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			if o.class == elsewhere {
				likeAWS(&cfg)
			}
			var log strings.Builder
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			o.fault.Operation, o.fault.Times = "PutObject", 1
			sink := open(t, cfg)
			for range 2 {
				server.Inject(o.fault)
				began := time.Now()
				mustTrack(t, sink, struct{}{})
				mustFlush(t, sink)
				if waited := time.Since(began); waited != 0 {
					t.Errorf("%s: waited %v", o.answer, waited)
				}
			}
			mustClose(t, sink)
			if st := sink.Stats(); st.Attempts != 4 || log.Len() > 0 {
				t.Errorf("%s: %d attempts for 2 objects; log %s", o.answer, st.Attempts, log.String())
			}
			if got, want := count(server, "AssumeRole"), map[string]int{refresh: 3, skew: 1, elsewhere: 1}[o.class]; got != want {
				t.Errorf("%s: %d sessions, want %d", o.answer, got, want)
			}
		})
	}
}

// likeAWS makes cfg's sink treat the server in memory as AWS.
func likeAWS(cfg *s3sink.Config) {
	cfg.Region, cfg.Endpoint, cfg.STSEndpoint = "", "", ""
	cfg.HTTPClient.Transport = plain{cfg.HTTPClient.Transport}
}

// plain is a transport that sends https requests as http.
type plain struct{ next http.RoundTripper }

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return p.next.RoundTrip(r)
}

// attempt is one PUT as a server sees it arrive.
type attempt struct {
	time    time.Time
	key     string
	body    [sha256.Size]byte
	session string // the access key that signed it
}

// recorder records the PUTs that arrive.
type recorder struct {
	mu  sync.Mutex
	all []attempt
}

// fault returns a fault that only records each PUT.
func (r *recorder) fault() s3sinktest.Fault {
	return s3sinktest.Fault{Operation: "PutObject", Match: func(req *http.Request) bool {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			panic(err) // the body is in memory
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all = append(r.all, attempt{time.Now(), req.URL.Path, sha256.Sum256(body), signer(req)})
		return false
	}}
}

func (r *recorder) seen() []attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Given the table in this file, then docs/outcomes.md has the same table.
// `go test -run TestOutcomesPage -update .` writes it.
func TestOutcomesPage(t *testing.T) {
	t.Parallel()
	const file, begin, end = "docs/outcomes.md", "<!-- outcome_test.go writes this -->\n", "<!-- until here -->\n"
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(written), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no room for the table", file)
	}
	table := "| answer | class | meaning and action |\n|---|---|---|\n"
	for _, o := range outcomes {
		table += fmt.Sprintf("| %s | [%s](#%s) | %s |\n", o.answer, o.class, o.class, o.means)
		if !strings.Contains(string(written), "\n## "+o.class+"\n") {
			t.Errorf("%s does not explain %s", file, o.class)
		}
	}
	want := before + begin + table + end + after
	if string(written) == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not what outcome_test.go holds: run `go test -run TestOutcomesPage -update .`", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
