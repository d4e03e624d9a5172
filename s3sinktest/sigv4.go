package s3sinktest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	algorithm     = "AWS4-HMAC-SHA256"
	amzTimeFormat = "20060102T150405Z"
	maxSkew       = 15 * time.Minute

	unsignedPayload = "UNSIGNED-PAYLOAD"
)

// authorization is an Authorization header taken apart.
type authorization struct {
	accessKeyID           string
	date, region, service string // the credential scope
	signedHeaders         []string
	signature             string
}

func parseAuthorization(header string) (authorization, bool) {
	var a authorization
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return a, false
	}
	var scope string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope = value
		case "SignedHeaders":
			a.signedHeaders = strings.Split(strings.ToLower(value), ";")
		case "Signature":
			a.signature = value
		}
	}
	fields := strings.Split(scope, "/")
	if len(fields) != 5 || fields[4] != "aws4_request" || a.signedHeaders == nil || a.signature == "" {
		return a, false
	}
	a.accessKeyID, a.date, a.region, a.service = fields[0], fields[1], fields[2], fields[3]
	return a, true
}

// authenticate checks the request's signature and sets c.caller. A request
// without one is let through as anonymous: what to answer is then up to the
// operation.
func (s *Server) authenticate(c *call) *apiError {
	if c.authorization == "" {
		return s.unsigned(c)
	}
	if !strings.HasPrefix(c.authorization, algorithm) {
		return c.denied(notSigV4)
	}
	auth, ok := parseAuthorization(c.authorization)
	if !ok {
		return c.denied(malformed)
	}
	token := c.r.Header.Get("X-Amz-Security-Token")
	cred, ok := s.credential(auth.accessKeyID)
	// AWS knows the key of a session by its token alone.
	if !ok || cred.token != "" && token == "" {
		return c.denied(unknownKey)
	}
	if !hmac.Equal([]byte(token), []byte(cred.token)) {
		return c.denied(badToken)
	}
	signed, err := c.checkDate(auth)
	if err != nil {
		return err
	}
	if err := s.checkScope(c, auth); err != nil {
		return err
	}
	if err := c.checkSignedHeaders(auth); err != nil {
		return err
	}
	payload, err := c.payloadHash()
	if err != nil {
		return err
	}
	if !auth.matches(c.r, payload, cred.secret, signed) {
		return c.denied(badSignature)
	}
	// Only who knows the secret is told that the session is over.
	if cred.expired() {
		return c.denied(expired)
	}
	if payload != unsignedPayload && payload != hexSHA256(c.body) {
		return &apiError{status: 400, code: "XAmzContentSHA256Mismatch",
			message: "The provided 'x-amz-content-sha256' header does not match what was computed."}
	}
	c.caller = cred.principal
	return nil
}

func (s *Server) unsigned(c *call) *apiError {
	if c.service == serviceSTS {
		return c.denied(noSignature)
	}
	if c.r.URL.Query().Has("X-Amz-Signature") {
		return notImplemented("Presigned requests are not supported.")
	}
	return nil
}

func (c *call) checkDate(auth authorization) (time.Time, *apiError) {
	date, err := time.Parse(amzTimeFormat, c.r.Header.Get("X-Amz-Date"))
	if err != nil {
		return date, c.denied(noDate)
	}
	now := time.Now().UTC()
	if now.Sub(date).Abs() > maxSkew {
		return date, c.skewed(date, now)
	}
	if auth.date != date.Format("20060102") {
		return date, c.denied(malformed)
	}
	return date, nil
}

// checkScope refuses a key derived for another service, or for another region
// than the bucket's. A bucket that does not exist has any region, and so has
// STS, because one URL stands for all of its endpoints here.
func (s *Server) checkScope(c *call, auth authorization) *apiError {
	if auth.service != c.service {
		return c.denied(malformed)
	}
	place, ok := s.place(c.bucket)
	if !ok || auth.region == place.region {
		return nil
	}
	return s.wrongRegionError(c, auth.region, place.region)
}

// checkSignedHeaders demands a signature over the host and every x-amz- header.
func (c *call) checkSignedHeaders(auth authorization) *apiError {
	var missing []string
	if !slices.Contains(auth.signedHeaders, "host") {
		missing = append(missing, "host")
	}
	for name := range c.r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-") && !slices.Contains(auth.signedHeaders, name) {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	e := c.denied(unsignedHeaders)
	e.details = []xmlElement{detail("HeadersNotSigned", strings.Join(missing, ", "))}
	return e
}

// payloadHash is the last line of the canonical request: what S3's client says
// it is, and what STS computes.
func (c *call) payloadHash() (string, *apiError) {
	if c.service == serviceSTS {
		return hexSHA256(c.body), nil
	}
	hash := c.r.Header.Get("X-Amz-Content-Sha256")
	switch {
	case hash == "":
		return "", &apiError{status: 400, code: "InvalidRequest",
			message: "Missing required header for this request: x-amz-content-sha256"}
	case strings.HasPrefix(hash, "STREAMING-"):
		return "", notImplemented("aws-chunked bodies are not supported.")
	case hash != unsignedPayload && !isHexSHA256(hash):
		return "", &apiError{status: 400, code: "InvalidArgument",
			message: "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, or a valid sha256 value."}
	}
	return hash, nil
}

// matches signs the signed part of the request once more and compares. The
// signer leaves out some headers, such as user-agent; AWS's clients do not sign
// those either.
func (a authorization) matches(r *http.Request, payload, secret string, date time.Time) bool {
	u := *r.URL
	u.Scheme = "http"
	if r.TLS != nil {
		u.Scheme = "https"
	}
	again := &http.Request{Method: r.Method, URL: &u, Host: r.Host, Header: make(http.Header)}
	for _, name := range a.signedHeaders {
		switch name {
		case "host": // always signed
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			key := textproto.CanonicalMIMEHeaderKey(name)
			again.Header[key] = slices.Clone(r.Header[key])
		}
	}
	// A new signer each time: it caches keys derived from secrets, and AddUser
	// may have replaced one.
	signer := v4.NewSigner(func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = a.service == serviceS3
	})
	keys := aws.Credentials{AccessKeyID: a.accessKeyID, SecretAccessKey: secret}
	if signer.SignHTTP(r.Context(), keys, again, payload, a.service, a.region, date) != nil {
		return false
	}
	want, _ := parseAuthorization(again.Header.Get("Authorization"))
	return hmac.Equal([]byte(want.signature), []byte(a.signature))
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func isHexSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}
