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

// Class is the class of a failed attempt. It decides how the uploader continues.
type Class int

const (
	// Transient: retry the same bytes with the same key after a backoff.
	Transient Class = iota
	// Refresh: retry immediately with new credentials, once per session.
	Refresh
	// Skew: retry immediately, once, on the same SDK client, which has
	// corrected its clock from the answer.
	Skew
	// Elsewhere: retry immediately, once, in the region that the answer names.
	Elsewhere
	// Parked: an operator must act. Keep the data and retry slowly.
	Parked
	// Integrity: S3 received bytes that do not match their checksum.
	Integrity
	// Unreadable: the body could not be read on this machine. Retry after a
	// backoff, and continue with other objects.
	Unreadable
	// Damaged: the bytes no longer match their checksum on this machine. Set
	// the object aside. The caller checks that after Integrity or Unreadable.
	Damaged
)

func (c Class) String() string {
	return [...]string{"transient", "refresh", "skew", "elsewhere", "parked", "integrity", "unreadable", "damaged"}[c]
}

// Error is the error of an attempt that did not store the object, or that may have
// stored it without an answer. If Named, the server has sent Code and Message;
// otherwise the SDK has derived them from the status. Status is 0 if there was no
// answer.
type Error struct {
	Class     Class
	Status    int
	Code      string
	Message   string
	RequestID string
	Err       error

	Named        bool          // the server has sent Code, so the answer is not from a proxy
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

// DeniesPut reports whether S3 denied PutObject. It is false if STS denied the
// role.
func (e *Error) DeniesPut() bool {
	var op *smithy.OperationError
	return e.Status == http.StatusForbidden && e.Code == "AccessDenied" &&
		errors.As(e.Err, &op) && op.Service() == s3.ServiceID && op.Operation() == "PutObject"
}

// Describe classifies err, which is an answer of S3 or STS, or the reason why
// there was no answer.
func Describe(err error) *Error { return newError(err) }

// newError extracts status, code and request id from err, and classifies it.
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
		e.Class = Parked // another server answers, or an operator must fix its certificate
	case errors.As(err, &foreign):
		e.Class = Parked // a panic, which the next attempt would repeat
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

// HasEnded reports whether err is an answer of S3 or STS which says that the
// session that signed the request has expired or is unknown.
func HasEnded(err error) bool {
	var ae smithy.APIError
	return errors.As(err, &ae) && classify(0, ae.ErrorCode()) == Refresh
}

// classify is the only place that classifies answers. It falls back to the status
// if it does not know the code, because proxies and compatible stores send answers
// without one. Unknown answers are transient, because the key is fixed and a retry
// is harmless.
func classify(status int, code string) Class {
	switch code {
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired":
		return Refresh // the session expired during the upload
	case "RequestTimeTooSkewed", "RequestExpired":
		return Skew // the SDK corrects its clock from the Date of this answer
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return Elsewhere // another region; the HTTP client does not follow redirects
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return Integrity
	case "RequestTimeout", "IncompleteBody", "SlowDown", "Throttling", "ThrottlingException",
		"RequestThrottled", "OperationAborted", "ConditionalRequestConflict", "InternalError":
		return Transient // S3 sends these codes with status 400 and 409 too, and asks for a retry
	}
	switch {
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return Parked // a policy, a key or a role is wrong
	case status == http.StatusNotFound:
		return Parked // the bucket does not exist
	case status == http.StatusMovedPermanently, status == http.StatusTemporaryRedirect, status == http.StatusPermanentRedirect:
		return Elsewhere
	case status == http.StatusBadRequest, status == http.StatusMethodNotAllowed,
		status == http.StatusNotImplemented, status == http.StatusLengthRequired,
		status == http.StatusRequestEntityTooLarge:
		return Parked // the store does not support a setting
	case strings.HasPrefix(code, "KMS."), strings.HasPrefix(code, "kms:"):
		return Parked // an operator must fix the KMS key, whatever the status
	}
	return Transient // 5xx, 409, 429, network, deadline, and unknown errors
}
