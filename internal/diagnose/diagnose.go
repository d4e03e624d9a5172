// Package diagnose turns the facts of a failed validation step into advice: the
// problem, its fix, and the IAM statement to add. It makes no request and does not
// depend on Config, so its rules are tested as a table.
//
// The rules look first at the code and the status of the answer. The message of a
// denial ([ParseDenial]) then names the policy that has to change. Only a denial
// without a reason leads to a list of guesses.
package diagnose

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/s3sink/s3sink/policy"
)

// Step is a step of a validation.
type Step string

// Steps, in order.
const (
	Region            Step = "region"                   // HeadBucket names the bucket's region
	Credentials       Step = "credentials"              // of the caller, or of an intermediate role
	WithoutExternalID Step = "role without external id" // AssumeRole, which must fail
	AssumeRole        Step = "role"
	PutObject         Step = "put object"
)

// Facts describe a step that failed.
type Facts struct {
	Step     Step
	Answer   Answer
	Settings Settings

	// Assumed reports that the role could be assumed without its external id.
	Assumed bool
}

// Answer is the answer that a step got.
type Answer struct {
	Status      int           // HTTP status; 0 if no answer came
	Code        string        // of the service
	Message     string        // of the service
	Named       bool          // the service named Code itself; no proxy did
	ContentType string        // of the body
	Operation   string        // the API call that failed, such as GetCallerIdentity
	Region      string        // of the bucket, if the answer names it
	Skew        time.Duration // the server's clock minus this host's, if the answer has a date

	// ErrorText is the text of the error. Rules search it for phrases of the SDK
	// and never quote it: it can contain any text, including secrets.
	ErrorText string

	UntrustedCertificate bool // TLS failed
	ForeignPanic         bool // code outside the sink panicked
}

// Settings are the settings on which advice depends. None is a secret.
type Settings struct {
	Bucket      string
	Region      string // configured or found
	STSRegion   string
	Endpoint    string // of S3; "" is AWS
	STSEndpoint string // "" is AWS

	// EndpointFrom and STSEndpointFrom name the origin of an endpoint:
	// "Config.Endpoint", or the AWS configuration of the process.
	EndpointFrom, STSEndpointFrom string

	UsePathStyle  bool
	Encryption    string // "", "AES256" or "aws:kms"
	KMSKey        string
	KMSContext    bool
	ACL           string
	StorageClass  string
	Tags          bool
	Metadata      bool
	CreateOnly    bool // uploads send If-None-Match; the step does not
	ExpectedOwner string

	Put    policy.Statement // permissions for uploads
	UseKey policy.Statement // the use of the KMS key, through S3

	Roles   []Role // assumed in this order; the last one writes
	Base    string // the credentials before the first role, such as "access key AKIA…"
	Ambient bool   // Base is the AWS configuration of the process
	Caller  string // ARN that GetCallerIdentity names, of the identity that assumes the last role

	Profile         string // AWS profile of the process
	MissingVariable string // variable of the missing half of the environment's access key
	CopyUser        bool   // RudderStack's copy-user variables are set
}

// Role is a role that the sink assumes.
type Role struct {
	ARN           string
	ExternalID    string
	Duration      bool // WithDuration is used
	SessionPolicy bool // the sink sends a session policy
}

// Diagnose returns the advice for a step that failed.
func Diagnose(f Facts) Advice {
	f.Answer.Message = strings.Join(strings.Fields(f.Answer.Message), " ")
	c := &diagnosis{Facts: f, denial: ParseDenial(f.Answer.Message)}
	a := c.advise()
	a.Says, a.Fix = oneLine(a.Says), oneLine(a.Fix)
	return a
}

// Speaker returns the name of the party that answered a step, for the phrase "AWS
// said". It returns "" if the answer is neither S3's nor STS's.
func Speaker(f Facts) string {
	switch {
	case !f.Answer.Named:
		return ""
	case f.asksS3() && f.Settings.Endpoint != "":
		return "The store"
	case !f.asksS3() && f.Settings.STSEndpoint != "":
		return "The STS"
	}
	return "AWS"
}

func (f Facts) asksS3() bool { return f.Step == Region || f.Step == PutObject }

// diagnosis is one run of the rules.
type diagnosis struct {
	Facts
	denial Denial
}

func (c *diagnosis) advise() Advice {
	answer := &c.Answer
	switch {
	case answer.ForeignPanic:
		return Advice{Kind: ForeignPanic,
			Says: "Code that the sink calls panicked: the AWS SDK, Config.HTTPClient, Config.AWS or a credentials provider.",
			Fix:  "Read the stack in the log of Config.Logger."}
	case c.Assumed:
		return c.externalIDNotRequired()
	case answer.UntrustedCertificate:
		return Advice{Kind: Certificate,
			Says: "The server's certificate is not trusted.",
			Fix:  "If it is the right server, name its authority in AWS_CA_BUNDLE, or set Config.HTTPClient."}
	}
	if a, ok := c.ambient(); ok {
		return a
	}
	switch {
	case answer.Status == 0:
		return c.noAnswer()
	case isAccountCode(answer.Code):
		return c.account()
	case c.isClock():
		return c.clock()
	case !answer.Named:
		return c.notTheService()
	case isKMS(answer.Code), answer.Code == "NotImplemented":
		return c.store()
	case answer.Status >= 500, answer.Status == 429, isBusy(answer.Code):
		return Advice{Kind: Busy,
			Says: "The service is busy or has a fault of its own.",
			Fix:  "Validate again."}
	case c.asksS3():
		return c.store()
	}
	return c.sts()
}

// noAnswer returns advice on a step that got no answer.
func (c *diagnosis) noAnswer() Advice {
	s := &c.Settings
	a := Advice{Kind: NoAnswer}
	switch {
	case c.Step == Credentials && len(s.Roles) == 0:
		a.Kind = NoCredentials
		a.Says = "No credentials were found."
		a.Fix = "Set Config.Credentials, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where there is an instance or container role."
	case c.Step == Credentials && !strings.Contains(c.Answer.ErrorText, "operation error STS"):
		a.Kind = NoCredentials
		a.Says = "No credentials were found to assume the role with." + c.copyUserNote()
		a.Fix = "Set them with Via, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where there is an instance or container role."
	case c.Step == Region:
		a.Says = "S3 did not answer, or did not name the bucket's region."
		a.Fix = "Set Config.Region, or check the network and proxies." + c.endpointNote()
	case c.Step == PutObject:
		a.Says = "S3 did not answer."
		a.Fix = "Check the network, proxies" + c.checks("Config.Region", s.Region, s.EndpointFrom, s.Endpoint) + "." + c.endpointNote()
	default:
		a.Says = "STS did not answer."
		a.Fix = "Check the network, proxies" + c.checks("Config.STSRegion", s.STSRegion, s.STSEndpointFrom, s.STSEndpoint) + "." + c.endpointNote()
	}
	return a
}

// checks lists the non-empty settings as text: " and A ("a")".
func (c *diagnosis) checks(namesAndValues ...string) string {
	var set []string
	for i := 0; i < len(namesAndValues); i += 2 {
		if namesAndValues[i+1] != "" {
			set = append(set, fmt.Sprintf("%s (%q)", namesAndValues[i], namesAndValues[i+1]))
		}
	}
	if len(set) == 0 {
		return ""
	}
	return " and " + strings.Join(set, " and ")
}

// notTheService returns advice on an answer that is neither S3's nor STS's. It may
// come from a proxy, a login page, or another service.
func (c *diagnosis) notTheService() Advice {
	s := &c.Settings
	service, endpoint, from := "STS", s.STSEndpoint, s.STSEndpointFrom
	if c.asksS3() {
		service, endpoint, from = "S3", s.Endpoint, s.EndpointFrom
	}
	what := fmt.Sprintf("%d %s", c.Answer.Status, clean(c.Answer.ContentType))
	if c.Answer.ContentType == "" {
		what = fmt.Sprintf("%d without a content type", c.Answer.Status)
	}
	a := Advice{Kind: NotTheService, Says: fmt.Sprintf("The answer is not %s's (%s): it names no error code of %s.", service, what, service)}
	a.Fix = "Look for a proxy or a login page between this host and " + service
	switch {
	case endpoint != "" && c.asksS3():
		a.Fix += fmt.Sprintf(", and check %s (%q) and Config.UsePathStyle (%t)", from, endpoint, s.UsePathStyle)
	case endpoint != "":
		a.Fix += fmt.Sprintf(", and check %s (%q)", from, endpoint)
	}
	a.Fix += "." + c.endpointNote()
	if c.Answer.Status >= 500 || c.Answer.Status == 429 {
		a.Fix += " If it is a passing fault, validate again."
	}
	return a
}

// endpointNote names an endpoint that does not come from the Config.
func (c *diagnosis) endpointNote() string {
	endpoint, from := c.Settings.STSEndpoint, c.Settings.STSEndpointFrom
	if c.asksS3() {
		endpoint, from = c.Settings.Endpoint, c.Settings.EndpointFrom
	}
	if endpoint == "" || strings.HasPrefix(from, "Config.") {
		return ""
	}
	return " The endpoint comes from AWS_ENDPOINT_URL or from a profile, not from the Config: unset it there if it is a leftover."
}

func (c *diagnosis) copyUserNote() string {
	if !c.Settings.CopyUser || len(c.Settings.Roles) == 0 {
		return ""
	}
	return " RUDDER_AWS_S3_COPY_USER_ACCESS_KEY_ID and RUDDER_AWS_S3_COPY_USER_ACCESS_KEY are set, but no role is assumed with them."
}

// isClock reports whether the clock of this host causes the failure.
func (c *diagnosis) isClock() bool {
	switch c.Answer.Code {
	case "RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture":
		return true
	}
	text := c.Answer.Message
	if strings.Contains(text, "Signature expired:") || strings.Contains(text, "Signature not yet current") {
		return true
	}
	return (c.Answer.Status == 403 || c.Answer.Status == 400) && c.Answer.Named && c.Answer.Skew.Abs() > maxSkew &&
		(isBadSecret(c.Answer.Code) || c.Answer.Code == "AccessDenied" && c.denial.Reason == "")
}

// maxSkew is the difference of clocks that AWS accepts in a signature.
const maxSkew = 15 * time.Minute

func (c *diagnosis) clock() Advice {
	by := ""
	if skew := c.Answer.Skew.Round(time.Minute); skew != 0 {
		behind := "behind"
		if skew < 0 {
			behind = "ahead of"
		}
		by = fmt.Sprintf(" It is %v %s the date of the answer.", skew.Abs(), behind)
	}
	return Advice{Kind: Clock,
		Says: "The clock of this host is more than 15 minutes off." + by + c.roleIsFine(),
		Fix:  "Set the clock, and keep it right with NTP."}
}

// roleIsFine states that the role is not the problem, for faults of the caller.
func (c *diagnosis) roleIsFine() string {
	switch {
	case c.Step == PutObject || c.Step == Region || len(c.Settings.Roles) == 0:
		return ""
	case c.Settings.writer().ExternalID == "":
		return " The role is not the problem."
	}
	return " The role and its external id are not the problem."
}

func (s *Settings) writer() Role {
	if len(s.Roles) == 0 {
		return Role{}
	}
	return s.Roles[len(s.Roles)-1]
}

// base names the credentials that signed the request of an STS step.
func (c *diagnosis) base() string {
	base := redactSecret(clean(c.Settings.Base))
	if len(c.Settings.Roles) > 1 && c.Step != Credentials {
		base = "role " + c.Settings.Roles[len(c.Settings.Roles)-2].ARN
	}
	if len(c.Settings.Roles) == 0 {
		if base == "" {
			return "credentials"
		}
		return "credentials (" + base + ")"
	}
	if base == "" {
		return "credentials to assume the role with"
	}
	return "credentials to assume the role with (" + base + ")"
}

// isBusy reports whether the service asks for another attempt. AWS also uses
// these codes with status 400.
func isBusy(code string) bool {
	switch code {
	case "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
		"RequestLimitExceeded", "SlowDown", "RequestTimeout", "InternalError", "InternalFailure", "ServiceUnavailable":
		return true
	}
	return false
}

func isKMS(code string) bool {
	return strings.HasPrefix(code, "KMS.") || strings.HasPrefix(code, "kms:") // MinIO's codes begin with kms:
}

func isAccountCode(code string) bool {
	switch code {
	case "NotSignedUp", "AllAccessDisabled", "AccountProblem", "InvalidPayer", "UnauthorizedAccess", "InactiveAccount":
		return true
	}
	return false
}

func (c *diagnosis) account() Advice {
	a := Advice{Kind: Account}
	switch c.Answer.Code {
	case "NotSignedUp":
		a.Says = "The account of the credentials is not signed up for S3: it is new, or its registration is not complete."
		a.Fix = "Complete the registration of the account (billing, identity check), or use another account."
	case "AllAccessDisabled":
		a.Says = "AWS has disabled all access to the bucket or to its account. No policy helps against that."
		a.Fix = "Ask the owner of the account to contact AWS Support."
	default:
		a.Says = "AWS has suspended or restricted the account, for example because of an unpaid bill."
		a.Fix = "Ask the owner of the account to look at its billing and its mail from AWS."
	}
	return a
}

// clean returns text of a server or of a setting as part of a sentence: in one
// line, without control characters, and short.
func clean(text string) string { return bounded(oneLine(text), 300) }

func oneLine(text string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)), " ")
}

func bounded(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
