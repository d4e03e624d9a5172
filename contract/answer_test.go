package contract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/encoding/httpbinding"
)

// keys are the credentials that a request is signed with.
type keys struct{ id, secret, token string }

// A request is sent exactly as its fields state. The client does not retry it,
// does not follow redirects, and adds only the signature.
type request struct {
	method string
	bucket string // empty: the site's
	key    string // empty: the request is for the bucket itself
	query  url.Values
	header http.Header
	body   string

	by        keys      // zero: the owner
	anonymous bool      // not signed
	region    string    // empty: the site's
	at        time.Time // zero: now
	payload   string    // x-amz-content-sha256; empty: the value that the SDK would send
	chunked   bool      // without Content-Length

	edit func(*http.Request) // called after signing
}

// to returns a request; header holds names and values alternately.
func to(method, key, body string, header ...string) request {
	r := request{method: method, key: key, body: body, header: make(http.Header), query: make(url.Values)}
	for i := 0; i < len(header); i += 2 {
		r.header.Add(header[i], header[i+1])
	}
	return r
}

func put(key, body string, header ...string) request {
	return to(http.MethodPut, key, body, header...)
}

func get(key string) request { return to(http.MethodGet, key, "") }

func (r request) as(k keys) request {
	r.by = k
	return r
}

func (r request) with(name, value string) request {
	r.query.Set(name, value)
	return r
}

// answer is the answer to a request. Its status is 0 if no answer came.
type answer struct {
	status int
	code   string // of an error
	header http.Header
	body   string
	err    error
}

// String returns the answer in the format of the list: 200, or 403 AccessDenied.
func (a answer) String() string {
	switch {
	case a.status == 0:
		return "no answer"
	case a.code == "":
		return fmt.Sprint(a.status)
	}
	return fmt.Sprintf("%d %s", a.status, a.code)
}

func (s *site) do(t *testing.T, r request) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return s.send(t, s.sign(ctx, t, r))
}

func (s *site) sign(ctx context.Context, t *testing.T, r request) *http.Request {
	t.Helper()
	if r.bucket == "" {
		r.bucket = s.bucket
	}
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + r.bucket
	if r.key != "" {
		u.Path += "/" + r.key
	}
	u.RawPath = httpbinding.EscapePath(u.Path, false)
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), bytes.NewReader([]byte(r.body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = r.header.Clone()
	if r.chunked {
		req.ContentLength = -1
	}
	if !r.anonymous {
		if r.payload == "" {
			r.payload = s.defaultPayload(r.body)
		}
		req.Header.Set("X-Amz-Content-Sha256", r.payload)
		s.signAs(t, req, "s3", r.by, r.region, r.payload, r.at)
	}
	if r.edit != nil {
		r.edit(req)
	}
	return req
}

// defaultPayload returns the payload hash that the SDK sends. Over TLS the SDK does
// not read the body a second time to hash it.
func (s *site) defaultPayload(body string) string {
	if s.scheme == "https" {
		return "UNSIGNED-PAYLOAD"
	}
	return hexSHA256(body)
}

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (s *site) signAs(t *testing.T, req *http.Request, service string, by keys, region, payload string, at time.Time) {
	t.Helper()
	if by == (keys{}) {
		by = s.owner
	}
	if region == "" {
		region = s.region
	}
	if at.IsZero() {
		at = time.Now()
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	with := aws.Credentials{AccessKeyID: by.id, SecretAccessKey: by.secret, SessionToken: by.token}
	if err := signer.SignHTTP(req.Context(), with, req, payload, service, region, at.UTC()); err != nil {
		t.Fatal(err)
	}
}

func (s *site) send(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, err := s.client.Do(req)
	if err != nil {
		t.Logf("%s %s: %v", req.Method, req.URL.Path, err)
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Logf("%s %s: %v", req.Method, req.URL.Path, err)
		return answer{err: err}
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(body)}
	if a.status >= 300 {
		a.code = errorCode(body)
		t.Logf("%s %s: %s %s", req.Method, req.URL.Path, a, body)
	}
	return a
}

// errorCode parses the error formats of S3 and of STS.
func errorCode(body []byte) string {
	var shape struct {
		Code  string `xml:"Code"`       // S3
		Error string `xml:"Error>Code"` // STS
	}
	if xml.Unmarshal(body, &shape) != nil {
		return ""
	}
	return shape.Code + shape.Error
}

// sts calls an action of STS. form holds names and values alternately.
func (s *site) sts(t *testing.T, by keys, at time.Time, form ...string) answer {
	t.Helper()
	return s.call(t, "sts", by, at, form...)
}

// call calls an action of a service whose requests are forms.
func (s *site) call(t *testing.T, service string, by keys, at time.Time, form ...string) answer {
	t.Helper()
	values := url.Values{"Version": {"2011-06-15"}}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	body := values.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.stsURL+"/", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if by != anonymous {
		s.signAs(t, req, service, by, "", hexSHA256(body), at)
	}
	return s.send(t, req)
}

// anonymous stands for a request without a signature.
var anonymous = keys{id: "anonymous"}

// assumeRole requests a session of the site's role; form overrides parameters.
func (s *site) assumeRole(t *testing.T, form ...string) answer {
	t.Helper()
	return s.sts(t, s.caller, time.Time{}, s.assumption(form...)...)
}

func (s *site) assumption(form ...string) []string {
	return append([]string{
		"Action", "AssumeRole",
		"RoleArn", s.role,
		"RoleSessionName", "contract",
		"ExternalId", s.externalID,
	}, form...)
}

// session reads the keys from the answer to AssumeRole.
func (a answer) session(t *testing.T) keys {
	t.Helper()
	var shape struct {
		ID     string `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
		Secret string `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
		Token  string `xml:"AssumeRoleResult>Credentials>SessionToken"`
	}
	if err := xml.Unmarshal([]byte(a.body), &shape); err != nil || shape.ID == "" || shape.Token == "" {
		t.Fatalf("AssumeRole: %s: %s", a, a.body)
	}
	return keys{shape.ID, shape.Secret, shape.Token}
}
