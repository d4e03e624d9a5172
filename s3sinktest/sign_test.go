package s3sinktest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/s3sink/s3sink/s3sinktest"
)

const unsignedPayload = "UNSIGNED-PAYLOAD"

// request is signed by the test itself, so that it can be wrong on purpose.
type request struct {
	method, path string
	header       map[string]string // signed
	body         string
	chunked      bool

	keys     aws.Credentials // keyID and secret when empty
	unsigned bool
	payload  string // UNSIGNED-PAYLOAD when empty
	service  string // s3 when empty
	region   string
	skew     time.Duration
	after    func(*http.Request) // changes the request once it is signed
}

func (q request) build(t *testing.T, srv *s3sinktest.Server) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), q.method, srv.URL()+q.path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if q.chunked {
		req.ContentLength = -1
	}
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	if !q.unsigned {
		q.sign(t, req)
	}
	if q.after != nil {
		q.after(req)
	}
	return req
}

func (q request) sign(t *testing.T, req *http.Request) {
	t.Helper()
	if q.keys.AccessKeyID == "" {
		q.keys = aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}
	}
	if q.payload == "" {
		q.payload = unsignedPayload
	}
	if q.service == "" {
		q.service = "s3"
	}
	if q.region == "" {
		q.region = region
	}
	if q.service == "s3" {
		req.Header.Set("X-Amz-Content-Sha256", q.payload)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(t.Context(), q.keys, req, q.payload, q.service, q.region, time.Now().Add(q.skew)); err != nil {
		t.Fatal(err)
	}
}

func (q request) send(t *testing.T, srv *s3sinktest.Server) reply {
	t.Helper()
	client := srv.HTTPClient()
	defer client.CloseIdleConnections()
	return send(t, client, q.build(t, srv))
}

// stsRequest is an STS call with the parameters, signed by the user.
func stsRequest(params map[string]string) request {
	form := url.Values{"Version": {"2011-06-15"}}
	for name, value := range params {
		form.Set(name, value)
	}
	body := form.Encode()
	return request{
		method:  "POST",
		path:    "/",
		body:    body,
		header:  map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
		payload: hexSHA256(body),
		service: "sts",
	}
}

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
