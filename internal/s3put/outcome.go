package s3put

import (
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/s3sink/s3sink/internal/barrier"
)

// Class says what to do after an attempt.
type Class int

const (
	// Transient: the same bytes to the same key, after a backoff.
	Transient Class = iota
	// Refresh: at once, with new credentials; once per token.
	Refresh
	// Skew: at once, on the same client, which has learnt the server's
	// clock from the answer; once.
	Skew
	// Elsewhere: at once, in the region that the answer names; once.
	Elsewhere
	// Parked: a person must change something. Keep the data, try slowly.
	Parked
	// Integrity: the bytes that arrived are not those that were meant.
	Integrity
	// Unreadable: the body could not be read, which says nothing of S3. The
	// same bytes to the same key after a backoff, and others meanwhile.
	Unreadable
	// Damaged: what would be sent is not what was meant. Set it aside. It
	// is for the caller to find out, after Integrity or Unreadable.
	Damaged
)

func (c Class) String() string {
	return [...]string{"transient", "refresh", "skew", "elsewhere", "parked", "integrity", "unreadable", "damaged"}[c]
}

// Error is an attempt that did not store the object, or that may have stored
// it without saying so. Code and Message are the server's if Named; the SDK made
// them up from the status if not. Status is 0 when no answer came.
type Error struct {
	Class     Class
	Status    int
	Code      string
	Message   string
	RequestID string
	Err       error

	Named        bool          // the server named Code, so no proxy answered in its place
	ContentType  string        // of the answer
	Operation    string        // the innermost call of AWS that failed, such as PutObject
	BucketRegion string        // the region of the bucket, if the answer names it
	Skew         time.Duration // the server's clock minus this host's, if the answer has a date
}

func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("no answer (%s): %v", e.Class, e.Err)
	}
	return fmt.Sprintf("status %d %s (%s): %v", e.Status, e.Code, e.Class, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// DeniesPut reports whether S3 refused the object for want of a permission. A
// role that STS refuses is another matter.
func (e *Error) DeniesPut() bool {
	var op *smithy.OperationError
	return e.Status == http.StatusForbidden && e.Code == "AccessDenied" &&
		errors.As(e.Err, &op) && op.Service() == s3.ServiceID && op.Operation() == "PutObject"
}

// Describe says what err means, which is an answer of S3 or STS or says why
// there is none.
func Describe(err error) *Error { return newError(err) }

// newError reads the facts out of err and decides.
func newError(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	e := &Error{Err: err}
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		e.Status, e.RequestID = re.HTTPStatusCode(), re.ServiceRequestID()
	}
	var ae smithy.APIError
	if errors.As(err, &ae) {
		e.Code, e.Message = ae.ErrorCode(), ae.ErrorMessage()
		e.Named = e.Message != "" && e.Message != http.StatusText(e.Status) && e.Message != e.Code
	}
	if re != nil && re.Response != nil && re.Response.Response != nil {
		e.readResponse(re.Response.Response)
	}
	e.Operation = operation(err)
	e.Class = classify(e.Status, e.Code)
	var certificate *tls.CertificateVerificationError
	var foreign *barrier.Panic
	switch {
	case errors.As(err, &certificate), errors.Is(err, http.ErrSchemeMismatch):
		e.Class = Parked // not the server that was meant, or its certificate needs a person
	case errors.As(err, &foreign):
		e.Class = Parked // a fault of code, which the next attempt will meet too
	}
	return e
}

// readResponse reads the facts that the SDK leaves out of its errors.
//
// The SDK knows one XML shape of errors for each service. Ceph's STS uses the shape
// of S3, and moto nests an element more, so the body is searched for the code too.
func (e *Error) readResponse(r *http.Response) {
	e.ContentType, e.BucketRegion = r.Header.Get("Content-Type"), r.Header.Get(regionHeader)
	if !regionName.MatchString(e.BucketRegion) {
		e.BucketRegion = ""
	}
	if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		e.Skew = time.Until(date)
	}
	body, ok := r.Body.(*errorBody)
	switch code := bodyCode.FindSubmatch(body.read()); {
	case r.Request != nil && r.Request.Method == http.MethodHead: // has no body
		e.Named = e.RequestID != ""
	case code != nil && e.Code != string(code[1]):
		e.Named, e.Code, e.Message = true, string(code[1]), ""
		if message := bodyMessage.FindSubmatch(body.read()); message != nil {
			e.Message = html.UnescapeString(string(message[1]))
		}
	case ok:
		e.Named = code != nil
	}
}

var (
	bodyCode    = regexp.MustCompile(`<Code>\s*([0-9A-Za-z.:_-]{1,100})\s*</Code>`)
	bodyMessage = regexp.MustCompile(`<Message>([^<]*)</Message>`)
)

// operation returns the name of the innermost call of AWS in err, or "".
func operation(err error) (name string) {
	for op := (*smithy.OperationError)(nil); errors.As(err, &op); err = op.Err {
		name = op.Operation()
	}
	return name
}

// HasEnded reports whether err is an answer of S3 or STS that says that the
// session which signed the request is over or was never known.
func HasEnded(err error) bool {
	var ae smithy.APIError
	return errors.As(err, &ae) && classify(0, ae.ErrorCode()) == Refresh
}

// classify is the one place that decides what an answer means. Status first,
// code second: proxies and compatible stores answer in shapes without a code.
// What is unknown is transient, because the key is fixed and a repeat is
// harmless.
func classify(status int, code string) Class {
	switch code {
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired":
		return Refresh // a session ended in mid-upload; the next one will do
	case "RequestTimeTooSkewed", "RequestExpired":
		return Skew // the SDK corrects its clock from the Date of this answer
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return Elsewhere // another region; redirects are not followed with data
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return Integrity
	case "RequestTimeout", "IncompleteBody", "SlowDown", "Throttling", "ThrottlingException",
		"RequestThrottled", "OperationAborted", "ConditionalRequestConflict", "InternalError":
		return Transient // S3 says these under 400 and 409 too, and asks for a retry
	}
	switch {
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return Parked // a policy, a key or a role is wrong
	case status == http.StatusNotFound:
		return Parked // no such bucket
	case status == http.StatusMovedPermanently, status == http.StatusTemporaryRedirect, status == http.StatusPermanentRedirect:
		return Elsewhere
	case status == http.StatusBadRequest, status == http.StatusMethodNotAllowed,
		status == http.StatusNotImplemented, status == http.StatusLengthRequired,
		status == http.StatusRequestEntityTooLarge:
		return Parked // the store does not take what the settings ask for
	case strings.HasPrefix(code, "KMS."), strings.HasPrefix(code, "kms:"):
		return Parked // whatever the status, the key needs a person
	}
	return Transient // 5xx, 409, 429, network, deadline, and what nobody foresaw
}
