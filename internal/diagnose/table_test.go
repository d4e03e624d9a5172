package diagnose_test

import (
	"strings"
	"time"

	"github.com/s3sink/s3sink/internal/diagnose"
	"github.com/s3sink/s3sink/policy"
)

// Names that the table uses.
const (
	bucket     = "acme-events"
	objects    = "arn:aws:s3:::acme-events/segment-logs/*"
	roleARN    = "arn:aws:iam::123456789012:role/S3Sink"
	hopARN     = "arn:aws:iam::210987654321:role/hop"
	callerRole = "arn:aws:iam::210987654321:role/checkout"
	caller     = "arn:aws:sts::210987654321:assumed-role/checkout/i-0abc"
	callerUser = "arn:aws:iam::210987654321:user/service"
	session    = "arn:aws:sts::123456789012:assumed-role/S3Sink/s3sink"
	object     = `"arn:aws:s3:::acme-events/segment-logs/dummy-object.txt"`
	key        = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	otherKey   = "arn:aws:kms:eu-west-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	farKey     = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	scp        = "arn:aws:organizations::987654321098:policy/o-qv5af4abcd/service_control_policy/p-2kgnabcd"
	rcp        = "arn:aws:organizations::987654321098:policy/o-qv5af4abcd/resource_control_policy/p-3kgnabcd"
	boundary   = "arn:aws:iam::123456789012:policy/limits"
)

// Statements that the table expects.
const (
	putStatement     = `{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["` + objects + `"]}`
	bucketStatement  = `{"Effect":"Allow","Principal":{"AWS":"` + roleARN + `"},"Action":["s3:PutObject"],"Resource":["` + objects + `"]}`
	assumeStatement  = `{"Effect":"Allow","Action":["sts:AssumeRole"],"Resource":["` + roleARN + `"]}`
	trustStatement   = `{"Effect":"Allow","Principal":{"AWS":"` + callerRole + `"},"Action":["sts:AssumeRole"],"Condition":{"StringEquals":{"sts:ExternalId":["ws-1"]}}}`
	tagStatement     = `{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":["` + roleARN + `"]}`
	tagTrust         = `{"Effect":"Allow","Principal":{"AWS":"` + callerRole + `"},"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":["ws-1"]}}}`
	viaS3            = `"Condition":{"StringLike":{"kms:ViaService":["s3.*.amazonaws.com","s3.*.amazonaws.com.cn"]}}`
	useAnyKey        = `{"Sid":"UseKeyThroughS3","Effect":"Allow","Action":["kms:GenerateDataKey"],"Resource":["*"],` + viaS3 + `}`
	useKey           = `{"Sid":"UseKeyThroughS3","Effect":"Allow","Action":["kms:GenerateDataKey"],"Resource":["` + key + `"],` + viaS3 + `}`
	keyStatement     = `{"Sid":"UseThroughS3","Effect":"Allow","Principal":{"AWS":"` + roleARN + `"},"Action":["kms:GenerateDataKey"],"Resource":["*"],` + viaS3 + `}`
	useOtherKey      = `{"Sid":"UseKeyThroughS3","Effect":"Allow","Action":["kms:GenerateDataKey"],"Resource":["` + otherKey + `"],` + viaS3 + `}`
	endpointAssume   = `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":["sts:AssumeRole"],"Resource":["` + roleARN + `"]}`
	endpointPut      = `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":["s3:PutObject"],"Resource":["` + objects + `"]}`
	bucketPolicyUser = `{"Effect":"Allow","Principal":{"AWS":"` + callerUser + `"},"Action":["s3:PutObject"],"Resource":["` + objects + `"]}`
)

// settings returns the settings of a sink that assumes a role at AWS, with the
// changes applied.
func settings(changes ...func(*diagnose.Settings)) diagnose.Settings {
	s := diagnose.Settings{
		Bucket: bucket, Region: "eu-west-1", STSRegion: "eu-west-1",
		EndpointFrom: "Config.Endpoint", STSEndpointFrom: "Config.STSEndpoint",
		CreateOnly: true,
		Put:        policy.Statement{Action: []string{"s3:PutObject"}, Resource: []string{objects}},
		UseKey: policy.Statement{Sid: "UseKeyThroughS3", Action: []string{"kms:GenerateDataKey"}, Resource: []string{"*"},
			Condition: map[string]map[string][]string{"StringLike": {"kms:ViaService": {"s3.*.amazonaws.com", "s3.*.amazonaws.com.cn"}}}},
		Roles:   []diagnose.Role{{ARN: roleARN, ExternalID: "ws-1", SessionPolicy: true}},
		Base:    "ambient",
		Ambient: true,
		Caller:  caller,
	}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func with(changes ...func(*diagnose.Settings)) func(*diagnose.Settings) {
	return func(s *diagnose.Settings) {
		for _, change := range changes {
			change(s)
		}
	}
}

func atStore(s *diagnose.Settings) { s.Endpoint, s.CreateOnly = "http://store.internal:7480", false }
func atSTS(s *diagnose.Settings)   { s.STSEndpoint = "http://store.internal:7480" }
func leftover(s *diagnose.Settings) {
	s.Endpoint, s.EndpointFrom = "http://localhost:4566", "AWS_ENDPOINT_URL or the profile"
	s.STSEndpoint, s.STSEndpointFrom = s.Endpoint, s.EndpointFrom
}
func sseS3(s *diagnose.Settings) { s.Encryption = "AES256" }
func sseKMS(s *diagnose.Settings) {
	s.Encryption, s.KMSKey, s.UseKey.Resource = "aws:kms", key, []string{key}
}
func acl(s *diagnose.Settings) {
	s.ACL = "bucket-owner-full-control"
	s.Put.Action = []string{"s3:PutObject", "s3:PutObjectAcl"}
}
func tags(s *diagnose.Settings) {
	s.Tags, s.Put.Action = true, []string{"s3:PutObject", "s3:PutObjectTagging"}
}
func chained(s *diagnose.Settings) {
	s.Roles = []diagnose.Role{{ARN: hopARN, SessionPolicy: true}, s.Roles[0]}
	s.Caller = "arn:aws:sts::210987654321:assumed-role/hop/s3sink"
}
func noSessionPolicy(s *diagnose.Settings) {
	for i := range s.Roles {
		s.Roles[i].SessionPolicy = false
	}
}
func noExternalID(s *diagnose.Settings)  { s.Roles[0].ExternalID = "" }
func unknownCaller(s *diagnose.Settings) { s.Caller = "" }
func keys(s *diagnose.Settings) {
	s.Base, s.Ambient, s.Caller = "access key AKIAIOSFODNN7EXAMPLE", false, callerUser
}
func noRole(s *diagnose.Settings) { s.Roles, s.Caller = nil, "" }
func swapped(s *diagnose.Settings) {
	s.Base, s.Ambient = "access key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", false
}
func sso(s *diagnose.Settings) {
	s.Caller = "arn:aws:sts::210987654321:assumed-role/AWSReservedSSO_Deploy_0123456789abcdef/jane@acme.example"
}
func profile(s *diagnose.Settings) { s.Profile = "deploy" }
func china(s *diagnose.Settings) {
	s.Put.Resource = []string{"arn:aws-cn:s3:::acme-events/segment-logs/*"}
	s.Roles = []diagnose.Role{{ARN: "arn:aws-cn:iam::123456789012:role/S3Sink", ExternalID: "ws-1", SessionPolicy: true}}
	s.Caller, s.Region = "arn:aws-cn:sts::210987654321:assumed-role/checkout/i-0abc", "cn-north-1"
}
func owned(s *diagnose.Settings) { s.ExpectedOwner = "123456789012" }

// row is a setup that fails: the answer, with AWS's message, and the expected
// advice.
type row struct {
	name       string
	step       diagnose.Step
	status     int
	code, text string
	change     func(*diagnose.Settings)
	more       func(*diagnose.Facts)

	kind       diagnose.Kind
	says       []string // in the advice
	not        []string // not in it
	statements []string
}

func html(f *diagnose.Facts)  { f.Answer.Named, f.Answer.ContentType = false, "text/html" }
func empty(f *diagnose.Facts) { f.Answer.Named, f.Answer.ContentType = false, "" }
func sdk(text string) func(*diagnose.Facts) {
	return func(f *diagnose.Facts) { f.Answer.ErrorText = text }
}
func call(operation string) func(*diagnose.Facts) {
	return func(f *diagnose.Facts) { f.Answer.Operation = operation }
}
func web(text string) func(*diagnose.Facts) {
	return func(f *diagnose.Facts) { f.Answer.ErrorText, f.Answer.Operation = text, "AssumeRoleWithWebIdentity" }
}

// denied returns AWS's message for a denial.
func denied(principal, action, resource, reason string) string {
	text := "User: " + principal + " is not authorized to perform: " + action
	if resource != "" {
		text += " on resource: " + resource
	}
	if reason != "" {
		text += " " + reason
	}
	return text
}

func noAllow(policy, action string) string {
	return "because no " + policy + " allows the " + action + " action"
}
func deny(policy string) string {
	if strings.HasPrefix(policy, "identity") {
		return "with an explicit deny in an " + policy
	}
	return "with an explicit deny in a " + policy
}

const (
	imds    = "failed to refresh cached credentials, no EC2 IMDS role found, operation error ec2imds: GetMetadata, "
	webErr  = "failed to refresh cached credentials, failed to retrieve credentials, operation error STS: AssumeRoleWithWebIdentity, https response error StatusCode: "
	guesses = "STS gives the same answer if the role does not exist"
)

// rows is the table of docs/diagnosis.md.
var rows = []row{
	// AssumeRole: the caller, the trust policy, and the policies above them.
	{name: "the caller may not assume the role", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("identity-based policy", "sts:AssumeRole")),
		kind: diagnose.CallerPermissions, says: []string{"external id is not the problem", "In the permissions of " + callerRole + ": "}, not: []string{guesses}, statements: []string{assumeStatement}},
	{name: "the same in the probe without an external id", step: diagnose.WithoutExternalID, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("identity-based policy", "sts:AssumeRole")),
		kind: diagnose.CallerPermissions, statements: []string{assumeStatement}},
	{name: "the same for a user", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: keys,
		text: denied(callerUser, "sts:AssumeRole", roleARN, noAllow("identity-based policy", "sts:AssumeRole")),
		kind: diagnose.CallerPermissions, says: []string{"In the permissions of " + callerUser}, not: []string{"path"}, statements: []string{assumeStatement}},
	{name: "the same, the caller's ARN known from the denial alone", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: unknownCaller,
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("identity-based policy", "sts:AssumeRole")),
		kind: diagnose.CallerPermissions, says: []string{"In the permissions of " + callerRole}, statements: []string{assumeStatement}},
	{name: "the trust policy does not allow the caller", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", "", noAllow("role trust policy", "sts:AssumeRole")),
		kind: diagnose.TrustOfRole, says: []string{`another external id than "ws-1"`, "aws:SourceIp", "aws:MultiFactorAuthPresent", "In the trust policy of " + roleARN}, not: []string{guesses}, statements: []string{trustStatement}},
	{name: "the trust policy, as a resource-based policy", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("resource-based policy", "sts:AssumeRole")),
		kind: diagnose.TrustOfRole, statements: []string{trustStatement}},
	{name: "the trust policy, no external id configured", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: noExternalID,
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("role trust policy", "sts:AssumeRole")),
		kind: diagnose.TrustOfRole, says: []string{"it demands an external id, and none is configured"},
		statements: []string{`{"Effect":"Allow","Principal":{"AWS":"` + callerRole + `"},"Action":["sts:AssumeRole"]}`}},
	{name: "the trust policy, caller of IAM Identity Center", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: sso,
		text:       denied("arn:aws:sts::210987654321:assumed-role/AWSReservedSSO_Deploy_0123456789abcdef/jane@acme.example", "sts:AssumeRole", roleARN, noAllow("role trust policy", "sts:AssumeRole")),
		kind:       diagnose.TrustOfRole,
		statements: []string{`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:root"},"Action":["sts:AssumeRole"],"Condition":{"ArnLike":{"aws:PrincipalArn":["arn:aws:iam::210987654321:role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_Deploy_0123456789abcdef"]},"StringEquals":{"sts:ExternalId":["ws-1"]}}}`}},
	{name: "the trust policy, in China", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: china,
		text:       denied("arn:aws-cn:sts::210987654321:assumed-role/checkout/i-0abc", "sts:AssumeRole", "arn:aws-cn:iam::123456789012:role/S3Sink", noAllow("role trust policy", "sts:AssumeRole")),
		kind:       diagnose.TrustOfRole,
		statements: []string{`{"Effect":"Allow","Principal":{"AWS":"arn:aws-cn:iam::210987654321:role/checkout"},"Action":["sts:AssumeRole"],"Condition":{"StringEquals":{"sts:ExternalId":["ws-1"]}}}`}},
	{name: "a Deny in the trust policy", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: "User: " + caller + " is not authorized to perform: sts:AssumeRole with an explicit deny in the role trust policy",
		kind: diagnose.ExplicitDeny, says: []string{"denies sts:AssumeRole explicitly", "Deny in the trust policy of " + roleARN}},
	{name: "a Deny in the caller's permissions", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, deny("identity-based policy")),
		kind: diagnose.ExplicitDeny, says: []string{"Deny in the permissions of " + callerRole, "MFA"}},
	{name: "a Deny in the caller's permissions, its ARN named", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, "with an explicit deny in an identity-based policy: arn:aws:iam::210987654321:policy/no-roles"),
		kind: diagnose.ExplicitDeny, says: []string{"arn:aws:iam::210987654321:policy/no-roles"}},
	{name: "a service control policy allows too little", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("service control policy", "sts:AssumeRole")),
		kind: diagnose.GuardrailPolicy, says: []string{"service control policy of the organization of account 210987654321", "administrators"}, not: []string{guesses}, statements: []string{assumeStatement}},
	{name: "a service control policy denies", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, deny("service control policy")),
		kind: diagnose.GuardrailPolicy, says: []string{"no permission helps"}},
	{name: "a service control policy denies, its ARN after a colon", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, deny("service control policy: "+scp)),
		kind: diagnose.GuardrailPolicy, says: []string{scp}},
	{name: "a service control policy denies, with policy ARN", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, deny("service control policy with policy ARN: "+scp+".")),
		kind: diagnose.GuardrailPolicy, says: []string{"(" + scp + ")"}},
	{name: "a resource control policy denies", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, deny("resource control policy: "+rcp)),
		kind: diagnose.GuardrailPolicy, says: []string{"resource control policy of the organization that owns the resource", rcp}},
	{name: "a permissions boundary allows too little", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("permissions boundary", "sts:AssumeRole")),
		kind: diagnose.GuardrailPolicy, says: []string{"permissions boundary of " + callerRole}, statements: []string{assumeStatement}},
	{name: "a permissions boundary denies", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, deny("permissions boundary: "+boundary)),
		kind: diagnose.GuardrailPolicy, says: []string{boundary}},
	{name: "the VPC endpoint of STS allows too little", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("VPC endpoint policy", "sts:AssumeRole")),
		kind: diagnose.GuardrailPolicy, says: []string{"VPC endpoint policy"}, statements: []string{endpointAssume}},
	{name: "the VPC endpoint of STS denies through an SCP", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, deny("VPC endpoint policy transitively through a service control policy")),
		kind: diagnose.GuardrailPolicy, says: []string{"VPC endpoint policy", "through a service control policy"}},
	{name: "the caller's session policy", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:AssumeRole", roleARN, noAllow("session policy", "sts:AssumeRole")),
		kind: diagnose.CallerPermissions, says: []string{"cut down"}, statements: []string{assumeStatement}},
	{name: "the session policy that the sink sends for a hop", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: chained,
		text: denied("arn:aws:sts::210987654321:assumed-role/hop/s3sink", "sts:AssumeRole", roleARN, noAllow("session policy", "sts:AssumeRole")),
		kind: diagnose.OwnSessionPolicy, says: []string{"WithoutSessionPolicy", hopARN}},
	{name: "session tags, caller", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:TagSession", roleARN, noAllow("identity-based policy", "sts:TagSession")),
		kind: diagnose.SessionTags, says: []string{"EKS Pod Identity", "both places"}, statements: []string{tagStatement, tagTrust}},
	{name: "session tags, trust policy", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:TagSession", roleARN, noAllow("role trust policy", "sts:TagSession")),
		kind: diagnose.SessionTags, statements: []string{tagStatement, tagTrust}},
	{name: "session tags, without a reason", step: diagnose.WithoutExternalID, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:TagSession", roleARN, ""),
		kind: diagnose.SessionTags, not: []string{guesses}, statements: []string{tagStatement, tagTrust}},
	{name: "session tags, session policy of a hop", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: chained,
		text: denied("arn:aws:sts::210987654321:assumed-role/hop/s3sink", "sts:TagSession", roleARN, noAllow("session policy", "sts:TagSession")),
		kind: diagnose.SessionTags, says: []string{"WithoutSessionPolicy"},
		statements: []string{tagStatement, `{"Effect":"Allow","Principal":{"AWS":"` + hopARN + `"},"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":["ws-1"]}}}`}},
	{name: "a source identity", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:SetSourceIdentity", roleARN, noAllow("role trust policy", "sts:SetSourceIdentity")),
		kind: diagnose.SessionTags, says: []string{"source identity", "sts:SetSourceIdentity"},
		statements: []string{`{"Effect":"Allow","Action":["sts:AssumeRole","sts:SetSourceIdentity"],"Resource":["` + roleARN + `"]}`,
			`{"Effect":"Allow","Principal":{"AWS":"` + callerRole + `"},"Action":["sts:AssumeRole","sts:SetSourceIdentity"],"Condition":{"StringEquals":{"sts:ExternalId":["ws-1"]}}}`}},
	{name: "session tags are denied", step: diagnose.AssumeRole, status: 403, code: "AccessDenied",
		text: denied(caller, "sts:TagSession", roleARN, deny("service control policy")),
		kind: diagnose.ExplicitDeny, says: []string{"denies sts:TagSession"}},
	{name: "the root user", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", text: "Roles may not be assumed by root accounts.",
		kind: diagnose.RootCaller, says: []string{"Create an IAM user or a role"}, not: []string{guesses}},
	{name: "MFA", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", text: "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.",
		kind: diagnose.MFA, says: []string{"aws:MultiFactorAuthPresent"}},
	{name: "no reason", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", text: denied(caller, "sts:AssumeRole", roleARN, ""),
		kind: diagnose.RefusedWithoutReason, says: []string{guesses, `with external id "ws-1"`, "does not name " + callerRole}, not: []string{"access key or its secret"}, statements: []string{assumeStatement, trustStatement}},
	{name: "no words at all", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", text: "Access denied",
		kind: diagnose.RefusedWithoutReason, statements: []string{assumeStatement, trustStatement}},
	{name: "no reason, no external id configured", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: noExternalID, text: denied(caller, "sts:AssumeRole", roleARN, ""),
		kind: diagnose.RefusedWithoutReason, says: []string{"if the role demands one, set it"},
		statements: []string{assumeStatement, `{"Effect":"Allow","Principal":{"AWS":"` + callerRole + `"},"Action":["sts:AssumeRole"]}`}},
	{name: "no reason, the caller unknown", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: unknownCaller, text: "Access denied",
		kind: diagnose.RefusedWithoutReason, statements: []string{assumeStatement}},
	{name: "no reason, copy-user variables set", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: func(s *diagnose.Settings) { s.CopyUser = true }, text: "Access denied",
		kind: diagnose.RefusedWithoutReason, says: []string{"no role is assumed with them"}, statements: []string{assumeStatement, trustStatement}},
	{name: "a Deny without a policy", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", text: denied(caller, "sts:AssumeRole", roleARN, "with an explicit deny"),
		kind: diagnose.ExplicitDeny, says: []string{"the trust policy of " + roleARN}},
	{name: "an intermediate role, identity-based", step: diagnose.Credentials, status: 403, code: "AccessDenied", change: with(chained, func(s *diagnose.Settings) { s.Caller = "" }),
		text: denied(caller, "sts:AssumeRole", hopARN, noAllow("identity-based policy", "sts:AssumeRole")),
		kind: diagnose.CallerPermissions, says: []string{hopARN}, not: []string{roleARN},
		statements: []string{`{"Effect":"Allow","Action":["sts:AssumeRole"],"Resource":["` + hopARN + `"]}`}},
	{name: "an intermediate role, without a reason", step: diagnose.Credentials, status: 403, code: "AccessDenied", change: with(chained, func(s *diagnose.Settings) { s.Caller = "" }),
		text: denied(caller, "sts:AssumeRole", hopARN, ""),
		kind: diagnose.RefusedWithoutReason, says: []string{"The intermediate role " + hopARN + " cannot be assumed"}, not: []string{"The role that writes is not the problem"},
		statements: []string{`{"Effect":"Allow","Action":["sts:AssumeRole"],"Resource":["` + hopARN + `"]}`, `{"Effect":"Allow","Principal":{"AWS":"` + callerRole + `"},"Action":["sts:AssumeRole"]}`}},
	{name: "the role that writes, of a chain", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: chained,
		text: denied("arn:aws:sts::210987654321:assumed-role/hop/s3sink", "sts:AssumeRole", roleARN, noAllow("role trust policy", "sts:AssumeRole")),
		kind: diagnose.TrustOfRole, statements: []string{`{"Effect":"Allow","Principal":{"AWS":"` + hopARN + `"},"Action":["sts:AssumeRole"],"Condition":{"StringEquals":{"sts:ExternalId":["ws-1"]}}}`}},
	{name: "the external id is not demanded", step: diagnose.WithoutExternalID, more: func(f *diagnose.Facts) { f.Assumed = true },
		kind: diagnose.ExternalIDNotRequired, says: []string{"can be assumed without its external id", "takes some seconds"}, statements: []string{trustStatement}},
	{name: "the external id is not demanded, the caller unknown", step: diagnose.WithoutExternalID, change: unknownCaller, more: func(f *diagnose.Facts) { f.Assumed = true },
		kind: diagnose.ExternalIDNotRequired, says: []string{`{"sts:ExternalId": "ws-1"}`}},

	// STS: other answers.
	{name: "role chaining", step: diagnose.AssumeRole, status: 400, code: "ValidationError", change: func(s *diagnose.Settings) { s.Roles[0].Duration = true },
		text: "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
		kind: diagnose.SessionDuration, says: []string{"WithDuration", "at most 1 hour"}},
	{name: "longer than the role allows", step: diagnose.WithoutExternalID, status: 400, code: "ValidationError", text: "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
		kind: diagnose.SessionDuration, says: []string{"maximum session duration"}},
	{name: "an ARN that is none", step: diagnose.AssumeRole, status: 400, code: "ValidationError", text: "Request ARN is invalid",
		kind: diagnose.RoleARN, says: []string{"Copy the ARN"}},
	{name: "an ARN that is too short", step: diagnose.AssumeRole, status: 400, code: "ValidationError", text: "arn:x is invalid: Invalid length for parameter RoleArn",
		kind: diagnose.RoleARN},
	{name: "a session name", step: diagnose.AssumeRole, status: 400, code: "ValidationError", text: "1 validation error detected: Value 'a b' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*",
		kind: diagnose.Setting, says: []string{"WithSessionName"}},
	{name: "an external id", step: diagnose.AssumeRole, status: 400, code: "ValidationError", text: "1 validation error detected: Value 'a b' at 'externalId' failed to satisfy constraint",
		kind: diagnose.Setting, says: []string{"external id"}},
	{name: "another bad request", step: diagnose.AssumeRole, status: 400, code: "ValidationError", change: func(s *diagnose.Settings) { s.Roles[0].Duration = true },
		kind: diagnose.RoleARN, says: []string{"maximum session duration, because WithDuration is used"}},
	{name: "a session policy that is too large", step: diagnose.AssumeRole, status: 400, code: "PackedPolicyTooLarge", text: "Serialized token too large for session",
		kind: diagnose.SessionPolicyRefused, says: []string{"WithoutSessionPolicy"}},
	{name: "packed size", step: diagnose.AssumeRole, status: 400, code: "PackedPolicyTooLarge", text: "Packed size of session tags consumes 120% of allotted space.", change: noSessionPolicy,
		kind: diagnose.SessionPolicyRefused, says: []string{"sends no session policy", "session tags"}},
	{name: "a session policy that Ceph refuses", step: diagnose.AssumeRole, status: 400, code: "MalformedPolicyDocument", change: with(atStore, atSTS),
		kind: diagnose.SessionPolicyRefused, says: []string{"WithoutSessionPolicy", "SSES3"}},
	{name: "a session policy that Ceph refuses, with SSES3", step: diagnose.AssumeRole, status: 400, code: "MalformedPolicyDocument", change: with(atStore, atSTS, sseS3),
		kind: diagnose.SessionPolicyRefused, says: []string{"WithoutSessionPolicy"}, not: []string{"SSES3"}},
	{name: "a session policy that MinIO refuses", step: diagnose.AssumeRole, status: 400, code: "InvalidParameterValue", text: "invalid condition key 'kms:ViaService'", change: with(atStore, atSTS),
		kind: diagnose.SessionPolicyRefused, says: []string{"kms:ViaService"}},
	{name: "STS is off in the region", step: diagnose.AssumeRole, status: 403, code: "RegionDisabledException", text: "STS is not activated in this region for account:123456789012. Your account administrator can activate STS in this region using the IAM Console.",
		kind: diagnose.RegionNotActive, says: []string{"not activated in region eu-west-1", "external id is not the problem", "Config.STSRegion"}},
	{name: "the region is not opted into", step: diagnose.AssumeRole, status: 403, code: "OptInRequired", text: "The AWS Access Key Id needs a subscription for the service",
		kind: diagnose.RegionNotActive, says: []string{"opted into region eu-west-1"}},
	{name: "the caller's key is unknown", step: diagnose.Credentials, status: 403, code: "InvalidClientTokenId", text: "The security token included in the request is invalid.", change: keys,
		kind: diagnose.UnknownKey, says: []string{"AWS does not know the access key of the credentials to assume the role with (access key AKIAIOSFODNN7EXAMPLE)", "external id are not the problem"}},
	{name: "id and secret are swapped", step: diagnose.Credentials, status: 403, code: "InvalidClientTokenId", text: "The security token included in the request is invalid.", change: swapped,
		kind: diagnose.UnknownKey, says: []string{"access key REDACTED"}, not: []string{"wJalrXUtn"}},
	{name: "the caller's key is unknown, at AssumeRole", step: diagnose.AssumeRole, status: 403, code: "InvalidClientTokenId", text: "The security token included in the request is invalid.", change: keys,
		kind: diagnose.UnknownKey, says: []string{"external id are not the problem"}, not: []string{guesses}},
	{name: "the caller's secret is wrong", step: diagnose.Credentials, status: 403, code: "SignatureDoesNotMatch", text: "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.", change: keys,
		kind: diagnose.WrongSecret, says: []string{"The secret of the credentials"}, not: []string{"clock"}},
	{name: "the caller's clock is behind", step: diagnose.Credentials, status: 403, code: "SignatureDoesNotMatch", text: "Signature expired: 20261130T090000Z is now earlier than 20261130T100000Z (20261130T101500Z - 15 min.)",
		more: func(f *diagnose.Facts) { f.Answer.Skew = 75 * time.Minute },
		kind: diagnose.Clock, says: []string{"1h15m0s behind the date of the answer", "external id are not the problem"}},
	{name: "the caller's clock is ahead", step: diagnose.Credentials, status: 403, code: "SignatureDoesNotMatch", text: "Signature not yet current: 20261130T110000Z is still later than 20261130T101500Z (20261130T100000Z + 15 min.)",
		more: func(f *diagnose.Facts) { f.Answer.Skew = -time.Hour },
		kind: diagnose.Clock, says: []string{"1h0m0s ahead of the date"}},
	{name: "the clock, by the date of a bare refusal", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: with(atSTS),
		more: func(f *diagnose.Facts) { f.Answer.Skew = -2 * time.Hour },
		kind: diagnose.Clock, not: []string{guesses}},
	{name: "the clock, in the store's code", step: diagnose.AssumeRole, status: 403, code: "RequestTimeTooSkewed", text: "The difference between the request time and the current time is too large.",
		kind: diagnose.Clock},
	{name: "the caller's session has ended", step: diagnose.Credentials, status: 403, code: "ExpiredToken", text: "The security token included in the request is expired",
		kind: diagnose.EndedSession, says: []string{"has ended"}},
	{name: "an STS in S3's words knows no token", step: diagnose.AssumeRole, status: 403, code: "InvalidTokenId", change: with(atSTS), text: "The security token included in the request is invalid",
		kind: diagnose.InvalidToken, says: []string{"The STS does not accept"}},
	{name: "GetCallerIdentity is refused", step: diagnose.Credentials, status: 403, code: "AccessDenied", text: "Access Denied", change: with(keys, unknownCaller), more: call("GetCallerIdentity"),
		kind: diagnose.CredentialSource, says: []string{"needs no permission", "external id are not the problem"}, not: []string{guesses}},
	{name: "the VPC endpoint of STS refuses GetCallerIdentity", step: diagnose.Credentials, status: 403, code: "AccessDenied", change: unknownCaller, more: call("GetCallerIdentity"),
		text: denied(caller, "sts:GetCallerIdentity", "", deny("VPC endpoint policy")),
		kind: diagnose.GuardrailPolicy, says: []string{"VPC endpoint policy"}},
	{name: "a call of a profile is refused, without roles of the sink", step: diagnose.Credentials, status: 403, code: "AccessDenied", change: noRole, more: call("AssumeRole"),
		text: denied(caller, "sts:AssumeRole", hopARN, ""),
		kind: diagnose.CredentialSource, says: []string{"the call AssumeRole was refused", "the profile"}},
	{name: "throttled", step: diagnose.AssumeRole, status: 400, code: "Throttling", text: "Rate exceeded", kind: diagnose.Busy},
	{name: "STS is down", step: diagnose.AssumeRole, status: 503, code: "ServiceUnavailable", text: "Service Unavailable", kind: diagnose.Busy},
	{name: "another STS refuses without words", step: diagnose.AssumeRole, status: 403, code: "AccessDenied", change: with(atStore, atSTS),
		kind: diagnose.RefusedWithoutReason, says: []string{"access key or its secret is wrong"}, statements: []string{assumeStatement, trustStatement}},
	{name: "another STS answers another code", step: diagnose.AssumeRole, status: 400, code: "InvalidAction", text: "Could not find operation AssumeRole", change: atSTS,
		kind: diagnose.Unknown, says: []string{"not AWS's", "Config.STSEndpoint"}},
	{name: "an unknown code of AWS", step: diagnose.AssumeRole, status: 400, code: "SomethingNew", text: "words",
		kind: diagnose.Unknown, says: []string{"STS does not say more"}},

	// Answers that are not the service's.
	{name: "a page at STS, 404", step: diagnose.AssumeRole, status: 404, more: html, kind: diagnose.NotTheService, says: []string{"The answer is not STS's (404 text/html)", "proxy"}, not: []string{"AWS said", "Config.STSEndpoint"}},
	{name: "a page at STS, 403", step: diagnose.AssumeRole, status: 403, more: html, kind: diagnose.NotTheService, says: []string{"403 text/html"}, not: []string{guesses, "external id"}},
	{name: "a page at STS, 200", step: diagnose.AssumeRole, status: 200, more: html, kind: diagnose.NotTheService, says: []string{"200 text/html"}},
	{name: "a page at STS, 407", step: diagnose.Credentials, status: 407, more: html, kind: diagnose.NotTheService, says: []string{"407 text/html"}},
	{name: "a page at STS, 503", step: diagnose.AssumeRole, status: 503, more: html, kind: diagnose.NotTheService, says: []string{"passing fault"}},
	{name: "a redirect at STS", step: diagnose.AssumeRole, status: 302, more: html, kind: diagnose.NotTheService, says: []string{"302 text/html"}},
	{name: "an empty answer at STS", step: diagnose.AssumeRole, status: 403, more: empty, kind: diagnose.NotTheService, says: []string{"403 without a content type"}},
	{name: "a page at STS, with an endpoint", step: diagnose.AssumeRole, status: 404, more: html, change: atSTS, kind: diagnose.NotTheService, says: []string{`Config.STSEndpoint ("http://store.internal:7480")`}},
	{name: "a page at S3, 404", step: diagnose.PutObject, status: 404, more: html, kind: diagnose.NotTheService, says: []string{"The answer is not S3's (404 text/html)"}, not: []string{"no bucket", "Config.Endpoint", "Config.UsePathStyle"}},
	{name: "a page at S3, 403", step: diagnose.PutObject, status: 403, more: html, kind: diagnose.NotTheService, not: []string{"Allow", "permission"}},
	{name: "a page at S3, 405", step: diagnose.PutObject, status: 405, more: html, kind: diagnose.NotTheService, says: []string{"405 text/html"}},
	{name: "a page at S3, 407", step: diagnose.PutObject, status: 407, more: html, kind: diagnose.NotTheService},
	{name: "a login page at S3, 200", step: diagnose.PutObject, status: 200, more: html, kind: diagnose.NotTheService, says: []string{"login page"}},
	{name: "a redirect at S3", step: diagnose.PutObject, status: 302, more: html, kind: diagnose.NotTheService},
	{name: "a page at the store", step: diagnose.PutObject, status: 404, more: html, change: atStore, kind: diagnose.NotTheService, says: []string{`Config.Endpoint ("http://store.internal:7480") and Config.UsePathStyle (false)`}},
	{name: "a leftover of AWS_ENDPOINT_URL", step: diagnose.PutObject, status: 404, more: html, change: leftover, kind: diagnose.NotTheService, says: []string{"AWS_ENDPOINT_URL", "leftover"}},
	{name: "a leftover of AWS_ENDPOINT_URL, nobody there", step: diagnose.AssumeRole, change: leftover, kind: diagnose.NoAnswer, says: []string{"AWS_ENDPOINT_URL", "leftover"}},
	{name: "a page for the region", step: diagnose.Region, status: 403, more: html, kind: diagnose.NotTheService},

	// PutObject: denials.
	{name: "the writer lacks the permission", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, noAllow("identity-based policy", "s3:PutObject")),
		kind: diagnose.WriterPermissions, says: []string{"In the permissions of " + roleARN}, not: []string{"KMS", "bucket policy"}, statements: []string{putStatement}},
	{name: "the writer lacks the permission, in China", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: china,
		text: denied("arn:aws-cn:sts::123456789012:assumed-role/S3Sink/s3sink", "s3:PutObject", `"arn:aws-cn:s3:::acme-events/segment-logs/dummy-object.txt"`, noAllow("identity-based policy", "s3:PutObject")),
		kind: diagnose.WriterPermissions, statements: []string{`{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws-cn:s3:::acme-events/segment-logs/*"]}`}},
	{name: "no bucket policy for another account", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, noAllow("resource-based policy", "s3:PutObject")),
		kind: diagnose.BucketPolicy, says: []string{"In the bucket policy of acme-events"}, statements: []string{bucketStatement}},
	{name: "no bucket policy, a user writes", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: with(keys, noRole),
		text: denied(callerUser, "s3:PutObject", object, noAllow("resource-based policy", "s3:PutObject")),
		kind: diagnose.BucketPolicy, statements: []string{bucketPolicyUser}},
	{name: "no bucket policy, with an ACL", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: acl,
		text: denied(session, "s3:PutObjectAcl", object, noAllow("resource-based policy", "s3:PutObjectAcl")),
		kind: diagnose.BucketPolicy, says: []string{"leave Config.ACL"}, statements: []string{`{"Effect":"Allow","Principal":{"AWS":"` + roleARN + `"},"Action":["s3:PutObject","s3:PutObjectAcl"],"Resource":["` + objects + `"]}`}},
	{name: "plain Access Denied", step: diagnose.PutObject, status: 403, code: "AccessDenied", text: "Access Denied",
		kind: diagnose.RefusedWithoutReason, says: []string{"another organization", "the bucket encrypts with a KMS key", "also in its bucket policy"}, not: []string{"ExpectedBucketOwner", "secret"}, statements: []string{putStatement, bucketStatement}},
	{name: "plain Access Denied, with SSE-KMS", step: diagnose.PutObject, status: 403, code: "AccessDenied", text: "Access Denied", change: sseKMS,
		kind: diagnose.RefusedWithoutReason, says: []string{"the KMS key may not be used"}, statements: []string{putStatement, bucketStatement, useKey, keyStatement}},
	{name: "plain Access Denied, with SSE-S3", step: diagnose.PutObject, status: 403, code: "AccessDenied", text: "Access Denied", change: sseS3,
		kind: diagnose.RefusedWithoutReason, not: []string{"KMS"}, statements: []string{putStatement, bucketStatement}},
	{name: "plain Access Denied, with an expected owner", step: diagnose.PutObject, status: 403, code: "AccessDenied", text: "Access Denied", change: owned,
		kind: diagnose.RefusedWithoutReason, says: []string{"does not belong to account 123456789012, as Config.ExpectedBucketOwner demands"}, statements: []string{putStatement, bucketStatement}},
	{name: "Access Denied of a store", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: atStore,
		kind: diagnose.RefusedWithoutReason, says: []string{"access key or its secret is wrong"}, not: []string{"organization"}, statements: []string{putStatement}},
	{name: "no ACL permission", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: acl,
		text: denied(session, "s3:PutObjectAcl", object, noAllow("identity-based policy", "s3:PutObjectAcl")),
		kind: diagnose.BucketACL, says: []string{`Config.ACL ("bucket-owner-full-control") needs s3:PutObjectAcl`}, statements: []string{`{"Effect":"Allow","Action":["s3:PutObject","s3:PutObjectAcl"],"Resource":["` + objects + `"]}`}},
	{name: "no tag permission", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: tags,
		text: denied(session, "s3:PutObjectTagging", object, noAllow("identity-based policy", "s3:PutObjectTagging")),
		kind: diagnose.ObjectTags, says: []string{"Config.Tags need s3:PutObjectTagging"}, statements: []string{`{"Effect":"Allow","Action":["s3:PutObject","s3:PutObjectTagging"],"Resource":["` + objects + `"]}`}},
	{name: "public ACLs are blocked", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: func(s *diagnose.Settings) { s.ACL = "public-read" },
		text: denied(session, "s3:PutObject", object, "because public access control lists (ACLs) are blocked by the BlockPublicAcls block public access setting."),
		kind: diagnose.BucketACL, says: []string{"Leave Config.ACL empty"}},
	{name: "an encryption type is blocked", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, "because this bucket has blocked upload requests that specify Server Side Encryption with Customer provided keys (SSE-C). Please specify a different server-side encryption type"),
		kind: diagnose.Setting, says: []string{"Config.Encryption"}},
	{name: "a Deny in the bucket policy", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, deny("resource-based policy")),
		kind: diagnose.ExplicitDeny, says: []string{"Deny in the bucket policy of acme-events", "Sent now: no encryption header", "no ACL", "If-None-Match: * with uploads", "TLS", "aws:PrincipalOrgID"}},
	{name: "a Deny in the bucket policy, settings set", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: with(sseKMS, acl, func(s *diagnose.Settings) { s.CreateOnly = false }),
		text: denied(session, "s3:PutObject", object, deny("resource-based policy")),
		kind: diagnose.ExplicitDeny, says: []string{"aws:kms with key " + key, "the ACL bucket-owner-full-control", "no If-None-Match"}},
	{name: "a Deny of a store without TLS", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: with(atStore, sseS3),
		text: denied(session, "s3:PutObject", object, deny("resource-based policy")),
		kind: diagnose.ExplicitDeny, says: []string{"no TLS (http://store.internal:7480)", "AES256 (SSES3)"}},
	{name: "a Deny in the writer's permissions", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, deny("identity-based policy")),
		kind: diagnose.ExplicitDeny, says: []string{"Deny in the permissions of " + roleARN}},
	{name: "a Deny without a policy at S3", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, "with an explicit deny"),
		kind: diagnose.ExplicitDeny, says: []string{"the bucket policy, the permissions"}},
	{name: "a Deny in the writer's boundary", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, deny("permissions boundary: "+boundary)),
		kind: diagnose.GuardrailPolicy, says: []string{"permissions boundary of " + roleARN + " (" + boundary + ")"}},
	{name: "the writer's boundary allows too little", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, noAllow("permissions boundary", "s3:PutObject")),
		kind: diagnose.GuardrailPolicy, statements: []string{putStatement}},
	{name: "a Deny of the organization", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, deny("service control policy: "+scp)),
		kind: diagnose.GuardrailPolicy, says: []string{scp, "Sent now"}},
	{name: "a Deny of the bucket's organization", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, deny("resource control policy")),
		kind: diagnose.GuardrailPolicy, says: []string{"resource control policy of the organization that owns"}},
	{name: "the organization allows too little", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, noAllow("service control policy", "s3:PutObject")),
		kind: diagnose.GuardrailPolicy, statements: []string{putStatement}},
	{name: "the VPC endpoint of S3 allows too little", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, noAllow("VPC endpoint policy", "s3:PutObject")),
		kind: diagnose.GuardrailPolicy, statements: []string{endpointPut}},
	{name: "the VPC endpoint of S3 denies through an SCP", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, deny("VPC endpoint policy transitively through a service control policy")),
		kind: diagnose.GuardrailPolicy, says: []string{"through a service control policy"}},
	{name: "the sink's own session policy", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, noAllow("session policy", "s3:PutObject")),
		kind: diagnose.OwnSessionPolicy, says: []string{"WithoutSessionPolicy"}},
	{name: "a session policy of others", step: diagnose.PutObject, status: 403, code: "AccessDenied", change: noSessionPolicy,
		text: denied(session, "s3:PutObject", object, noAllow("session policy", "s3:PutObject")),
		kind: diagnose.WriterPermissions, says: []string{"cut down"}, statements: []string{putStatement}},
	{name: "a Deny in a session policy", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "s3:PutObject", object, deny("sessions policy")),
		kind: diagnose.ExplicitDeny, says: []string{"the session policy of the credentials"}},

	// PutObject: the KMS key.
	{name: "the writer may not use the key", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", key, noAllow("identity-based policy", "kms:GenerateDataKey")),
		kind: diagnose.KeyPermissions, says: []string{key}, not: []string{"In the policy of the KMS key"}, statements: []string{useKey}},
	{name: "the key's policy does not leave it to IAM", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", key, noAllow("resource-based policy", "kms:GenerateDataKey")),
		kind: diagnose.KeyPolicy, says: []string{"does not leave that to IAM"}, statements: []string{keyStatement}},
	{name: "a key of another account", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", otherKey, noAllow("resource-based policy", "kms:GenerateDataKey")),
		kind: diagnose.KeyPolicy, says: []string{"account 999999999999", "both sides"}, statements: []string{useOtherKey, keyStatement}},
	{name: "a key of another account, identity-based", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", otherKey, noAllow("identity-based policy", "kms:GenerateDataKey")),
		kind: diagnose.KeyPolicy, statements: []string{useOtherKey, keyStatement}},
	{name: "a key of another region", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", farKey, noAllow("resource-based policy", "kms:GenerateDataKey")),
		kind: diagnose.KeyPolicy, says: []string{"The key is in us-east-1, but the bucket is in eu-west-1"}, statements: []string{keyStatement}},
	{name: "no reason, at the key", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", key, ""),
		kind: diagnose.KeyPermissions, says: []string{"add the second if"}, statements: []string{useKey, keyStatement}},
	{name: "kms:Decrypt", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:Decrypt", key, noAllow("identity-based policy", "kms:Decrypt")),
		kind: diagnose.KeyPermissions, statements: []string{`{"Sid":"UseKeyThroughS3","Effect":"Allow","Action":["kms:GenerateDataKey","kms:Decrypt"],"Resource":["` + key + `"],` + viaS3 + `}`}},
	{name: "the sink's session policy, at the key", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", key, noAllow("session policy", "kms:GenerateDataKey")),
		kind: diagnose.OwnSessionPolicy, says: []string{"WithoutSessionPolicy", "kms:GenerateDataKey"}},
	{name: "a Deny in the key's policy", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", key, deny("resource-based policy")),
		kind: diagnose.ExplicitDeny, says: []string{"denies kms:GenerateDataKey explicitly", "the policy of the KMS key " + key}},
	{name: "a Deny in the permissions, at the key", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", key, deny("identity-based policy")),
		kind: diagnose.ExplicitDeny, says: []string{"the identity-based policy of " + roleARN}},
	{name: "a Deny of the organization, at the key", step: diagnose.PutObject, status: 403, code: "AccessDenied",
		text: denied(session, "kms:GenerateDataKey", key, deny("service control policy: "+scp)),
		kind: diagnose.GuardrailPolicy, says: []string{scp, "kms:GenerateDataKey"}},
	{name: "KMS.AccessDeniedException", step: diagnose.PutObject, status: 403, code: "KMS.AccessDeniedException",
		text: denied(session, "kms:GenerateDataKey", key, noAllow("identity-based policy", "kms:GenerateDataKey")),
		kind: diagnose.KeyPermissions, statements: []string{useKey}},
	{name: "a key that is not there", step: diagnose.PutObject, status: 400, code: "KMS.NotFoundException", text: "Invalid keyId '1234'", change: sseKMS,
		kind: diagnose.KeyState, says: []string{"does not exist in the bucket's region"}},
	{name: "a configured key of another region", step: diagnose.PutObject, status: 400, code: "KMS.NotFoundException", change: func(s *diagnose.Settings) { s.Encryption, s.KMSKey = "aws:kms", farKey },
		text: "Invalid arn us-east-1", kind: diagnose.KeyState, says: []string{"The key is in us-east-1 and the bucket in eu-west-1"}},
	{name: "a key that is not there, MinIO", step: diagnose.PutObject, status: 404, code: "kms:KeyNotFound", text: "key with given key ID does not exist", change: with(atStore, sseKMS),
		kind: diagnose.KeyState, says: []string{"does not exist", "KMS that the store is configured with"}},
	{name: "a key that is not there, Ceph", step: diagnose.PutObject, status: 403, code: "InvalidAccessKeyId", change: with(atStore, sseKMS),
		kind: diagnose.UnknownKey, says: []string{"it does not know the KMS key"}},
	{name: "a disabled key", step: diagnose.PutObject, status: 400, code: "KMS.DisabledException", text: key + " is disabled.", kind: diagnose.KeyState, says: []string{"is disabled", "Enable it"}},
	{name: "a key that waits for its deletion", step: diagnose.PutObject, status: 400, code: "KMS.KMSInvalidStateException", text: key + " is pending deletion.", kind: diagnose.KeyState, says: []string{"waiting to be deleted"}},
	{name: "the same under 500", step: diagnose.PutObject, status: 500, code: "KMS.KMSInvalidStateException", text: key + " is pending deletion.", kind: diagnose.KeyState},
	{name: "an asymmetric key", step: diagnose.PutObject, status: 400, code: "KMS.InvalidKeyUsageException", kind: diagnose.KeyState, says: []string{"symmetric"}},
	{name: "another state of the key", step: diagnose.PutObject, status: 400, code: "KMS.SomethingNew", kind: diagnose.KeyState},

	// PutObject: other answers.
	{name: "no bucket", step: diagnose.PutObject, status: 404, code: "NoSuchBucket", text: "The specified bucket does not exist", kind: diagnose.NoBucket, says: []string{"There is no bucket acme-events"}},
	{name: "no bucket, for the region", step: diagnose.Region, status: 404, code: "NotFound", kind: diagnose.NoBucket},
	{name: "another region, in the header", step: diagnose.PutObject, status: 301, code: "PermanentRedirect", more: func(f *diagnose.Facts) { f.Answer.Region = "ap-south-1" },
		text: "The bucket you are attempting to access must be addressed using the specified endpoint.", kind: diagnose.WrongRegion, says: []string{"The bucket is in ap-south-1, not in eu-west-1."}},
	{name: "another region, in the text", step: diagnose.PutObject, status: 400, code: "AuthorizationHeaderMalformed", text: "The authorization header is malformed; the region 'eu-west-1' is wrong; expecting 'ap-south-1'",
		kind: diagnose.WrongRegion, says: []string{`Config.Region to "ap-south-1"`}},
	{name: "another region, not named", step: diagnose.PutObject, status: 301, code: "PermanentRedirect", kind: diagnose.WrongRegion, says: []string{"did not name it"}},
	{name: "the region is not known", step: diagnose.Region, status: 403, code: "Forbidden", kind: diagnose.WrongRegion, says: []string{"Set Config.Region"}, not: []string{"s3:PutObject"}},
	{name: "an access key that S3 does not know", step: diagnose.PutObject, status: 403, code: "InvalidAccessKeyId", text: "The AWS Access Key Id you provided does not exist in our records.", kind: diagnose.UnknownKey, says: []string{"AWS does not know"}},
	{name: "an access key that a store does not know", step: diagnose.PutObject, status: 403, code: "InvalidAccessKeyId", change: atStore, kind: diagnose.UnknownKey, says: []string{"The store does not know"}, not: []string{"AWS does not"}},
	{name: "a wrong secret at S3", step: diagnose.PutObject, status: 403, code: "SignatureDoesNotMatch", text: "The request signature we calculated does not match the signature you provided. Check your key and signing method.", kind: diagnose.WrongSecret},
	{name: "a wrong secret, by a clock that is off", step: diagnose.PutObject, status: 403, code: "SignatureDoesNotMatch", change: atStore, more: func(f *diagnose.Facts) { f.Answer.Skew = time.Hour }, kind: diagnose.Clock},
	{name: "the clock at S3", step: diagnose.PutObject, status: 403, code: "RequestTimeTooSkewed", text: "The difference between the request time and the current time is too large.", kind: diagnose.Clock, not: []string{"role"}},
	{name: "a session that has ended", step: diagnose.PutObject, status: 400, code: "ExpiredToken", text: "The provided token has expired.", kind: diagnose.EndedSession},
	{name: "a token of the global STS", step: diagnose.PutObject, status: 400, code: "InvalidToken", text: "The provided token is malformed or otherwise invalid.", kind: diagnose.InvalidToken, says: []string{"Config.STSRegion", "opt-in"}},
	{name: "a token that a store does not know", step: diagnose.PutObject, status: 403, code: "InvalidTokenId", change: atStore, kind: diagnose.InvalidToken, not: []string{"opt-in"}},
	{name: "a token that Ceph does not know", step: diagnose.PutObject, status: 400, code: "InvalidArgument", change: atStore, kind: diagnose.Setting, says: []string{"session token", "no other setting changes the request"}},
	{name: "the account has no S3", step: diagnose.PutObject, status: 403, code: "NotSignedUp", text: "Your account is not signed up for the Amazon S3 service.", kind: diagnose.Account, says: []string{"registration"}},
	{name: "all access is disabled", step: diagnose.PutObject, status: 403, code: "AllAccessDisabled", text: "All access to this Amazon S3 resource has been disabled.", kind: diagnose.Account, says: []string{"AWS Support"}},
	{name: "the account has a problem", step: diagnose.PutObject, status: 403, code: "AccountProblem", text: "There is a problem with your AWS account that prevents the action from completing successfully.", kind: diagnose.Account, says: []string{"billing"}},
	{name: "a tag that S3 refuses", step: diagnose.PutObject, status: 400, code: "InvalidTag", text: "The TagKey you have provided is invalid", change: tags, kind: diagnose.Setting, says: []string{"Config.Tags"}},
	{name: "metadata that is too large", step: diagnose.PutObject, status: 400, code: "MetadataTooLarge", text: "Your metadata headers exceed the maximum allowed metadata size", kind: diagnose.Setting, says: []string{"Config.Metadata"}},
	{name: "a key that is too long", step: diagnose.PutObject, status: 400, code: "KeyTooLongError", text: "Your key is too long", kind: diagnose.Setting, says: []string{"Config.Prefix"}},
	{name: "no ACLs", step: diagnose.PutObject, status: 400, code: "AccessControlListNotSupported", text: "The bucket does not allow ACLs", change: acl, kind: diagnose.BucketACL, says: []string{"Leave Config.ACL empty"}},
	{name: "a bucket's name", step: diagnose.PutObject, status: 400, code: "InvalidBucketName", text: "The specified bucket is not valid.", kind: diagnose.Setting, says: []string{"Config.Bucket"}},
	{name: "a storage class", step: diagnose.PutObject, status: 400, code: "InvalidStorageClass", text: "The storage class you specified is not valid", kind: diagnose.Setting, says: []string{"Config.StorageClass"}},
	{name: "not implemented", step: diagnose.PutObject, status: 501, code: "NotImplemented", text: "A header you provided implies functionality that is not implemented", change: with(atStore, sseS3, tags), kind: diagnose.Setting, says: []string{"Config.Encryption (SSES3", "Config.Tags"}, not: []string{"Config.ACL", "Config.StorageClass", "Config.CreateOnly"}},
	{name: "an argument", step: diagnose.PutObject, status: 400, code: "InvalidArgument", text: "Server Side Encryption with KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms", change: sseKMS, kind: diagnose.Setting, says: []string{"SSEKMS"}},
	{name: "a changed body", step: diagnose.PutObject, status: 400, code: "BadDigest", text: "The CRC32 you specified did not match the calculated checksum.", kind: diagnose.Integrity},
	{name: "a condition", step: diagnose.PutObject, status: 412, code: "PreconditionFailed", kind: diagnose.Setting, says: []string{"CreateOnlyOff"}},
	{name: "slow down", step: diagnose.PutObject, status: 503, code: "SlowDown", text: "Please reduce your request rate.", kind: diagnose.Busy},
	{name: "too slow", step: diagnose.PutObject, status: 400, code: "RequestTimeout", text: "Your socket connection to the server was not read from or written to within the timeout period.", kind: diagnose.Busy},
	{name: "an unknown code of S3", step: diagnose.PutObject, status: 400, code: "SomethingNew", change: acl, kind: diagnose.Unknown, says: []string{"Config.ACL"}},

	// No answer, and the sources of credentials.
	{name: "S3 does not answer", step: diagnose.PutObject, kind: diagnose.NoAnswer, says: []string{`Config.Region ("eu-west-1")`}, not: []string{"Config.Endpoint"}},
	{name: "a store does not answer", step: diagnose.PutObject, change: atStore, kind: diagnose.NoAnswer, says: []string{"Config.Endpoint"}},
	{name: "STS does not answer", step: diagnose.AssumeRole, kind: diagnose.NoAnswer, says: []string{`Config.STSRegion ("eu-west-1")`}, not: []string{"Config.STSEndpoint"}},
	{name: "STS does not answer for the caller", step: diagnose.Credentials, more: sdk("operation error STS: GetCallerIdentity, exceeded maximum number of attempts, 3, https response error StatusCode: 0, RequestID: , request send failed, Post \"https://sts.eu-west-1.amazonaws.com/\": dial tcp: lookup sts.eu-west-1.amazonaws.com: no such host"), kind: diagnose.NoAnswer, says: []string{"STS did not answer"}, not: []string{"No credentials"}},
	{name: "the region is not found", step: diagnose.Region, kind: diagnose.NoAnswer, says: []string{"Set Config.Region"}},
	{name: "a certificate", step: diagnose.PutObject, more: func(f *diagnose.Facts) { f.Answer.UntrustedCertificate = true }, kind: diagnose.Certificate, says: []string{"AWS_CA_BUNDLE"}},
	{name: "a panic", step: diagnose.Credentials, more: func(f *diagnose.Facts) { f.Answer.ForeignPanic = true }, kind: diagnose.ForeignPanic},
	{name: "nothing anywhere", step: diagnose.Credentials, change: noRole, more: sdk(imds + "request send failed, Get \"http://169.254.169.254/latest/meta-data/iam/security-credentials/\": dial tcp 169.254.169.254:80: connect: connection refused"), kind: diagnose.NoCredentials, says: []string{"No credentials were found. "}},
	{name: "nothing to assume a role with", step: diagnose.Credentials, more: sdk(imds + "request send failed, dial tcp 169.254.169.254:80: connect: no route to host"), kind: diagnose.NoCredentials, says: []string{"to assume the role with"}},
	{name: "copy-user variables and nothing else", step: diagnose.Credentials, change: func(s *diagnose.Settings) { s.CopyUser = true }, more: sdk("failed to refresh cached credentials, no EC2 IMDS role found, operation error ec2imds: GetMetadata, access disabled to EC2 IMDS via client option, or \"AWS_EC2_METADATA_DISABLED\" environment variable"), kind: diagnose.NoCredentials, says: []string{"RUDDER_AWS_S3_COPY_USER_ACCESS_KEY", "no role is assumed with them"}},
	{name: "IMDS names no role", step: diagnose.Credentials, more: sdk(imds + "http response error StatusCode: 404, request to EC2 IMDS failed"), kind: diagnose.CredentialSource, says: []string{"no instance profile"}},
	{name: "the hop limit of IMDS", step: diagnose.Credentials, more: sdk(imds + "canceled, context deadline exceeded"), kind: diagnose.CredentialSource, says: []string{"--http-put-response-hop-limit 2"}},
	{name: "IMDS wants a token", step: diagnose.Credentials, more: sdk(imds + "http response error StatusCode: 401, request to EC2 IMDS failed"), kind: diagnose.CredentialSource, says: []string{"hop limit"}},
	{name: "IRSA without trust", step: diagnose.Credentials, status: 403, code: "AccessDenied", text: "Not authorized to perform sts:AssumeRoleWithWebIdentity", more: web(webErr + "403, api error AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity"), kind: diagnose.CredentialSource, says: []string{"system:serviceaccount:NAMESPACE:NAME", "AWS_ROLE_ARN"}, not: []string{roleARN}},
	{name: "IRSA without an OIDC provider", step: diagnose.Credentials, status: 400, code: "InvalidIdentityToken", text: "No OpenIDConnect provider found in your account for https://oidc.eks.eu-west-1.amazonaws.com/id/ABC", more: web(webErr + "400, InvalidIdentityToken: No OpenIDConnect provider found in your account for https://oidc.eks.eu-west-1.amazonaws.com/id/ABC"), kind: diagnose.CredentialSource, says: []string{"no OIDC provider"}},
	{name: "IRSA with another audience", step: diagnose.Credentials, status: 400, code: "InvalidIdentityToken", text: "Incorrect token audience", more: web(webErr + "400, InvalidIdentityToken: Incorrect token audience"), kind: diagnose.CredentialSource, says: []string{"audience"}},
	{name: "IRSA with an old token", step: diagnose.Credentials, status: 400, code: "ExpiredTokenException", text: "Token expired: current date/time 1764540000 must be before the expiration date/time 1764530000", more: web(webErr + "400, ExpiredTokenException: Token expired"), kind: diagnose.CredentialSource, says: []string{"new token"}},
	{name: "IRSA without its file", step: diagnose.Credentials, more: sdk("failed to refresh cached credentials, failed to retrieve jwt from provide source, unable to read file at /var/run/secrets/eks.amazonaws.com/serviceaccount/token: open /var/run/secrets/eks.amazonaws.com/serviceaccount/token: no such file or directory"), kind: diagnose.CredentialSource, says: []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "Annotate the service account"}},
	{name: "STS does not answer IRSA", step: diagnose.Credentials, more: web(webErr + "0, request send failed"), kind: diagnose.CredentialSource, says: []string{"did not answer"}},
	{name: "SSO has ended", step: diagnose.Credentials, change: profile, more: sdk("failed to refresh cached credentials, refresh cached SSO token failed, unable to refresh SSO token, operation error SSO OIDC: CreateToken, https response error StatusCode: 400, RequestID: c0dd4a98, InvalidGrantException: "), status: 400, code: "InvalidGrantException", kind: diagnose.CredentialSource, says: []string{"Run: aws sso login --profile deploy"}},
	{name: "SSO was never begun", step: diagnose.Credentials, more: sdk("failed to refresh cached credentials, failed to read cached SSO token file, open /home/x/.aws/sso/cache/abc.json: no such file or directory"), kind: diagnose.CredentialSource, says: []string{"aws sso login"}, not: []string{"--profile"}},
	{name: "SSO, 401", step: diagnose.Credentials, change: profile, status: 401, code: "UnauthorizedException", text: "Session token not found or invalid", more: sdk("failed to refresh cached credentials, operation error SSO: GetRoleCredentials, https response error StatusCode: 401, RequestID: c0dd4a98, UnauthorizedException: Session token not found or invalid"), kind: diagnose.CredentialSource, says: []string{"aws sso login --profile deploy"}},
	{name: "SSO without an assignment", step: diagnose.Credentials, status: 403, code: "ForbiddenException", text: "No access", more: sdk("failed to refresh cached credentials, operation error SSO: GetRoleCredentials, https response error StatusCode: 403, RequestID: c0dd4a98, api error ForbiddenException: No access"), kind: diagnose.CredentialSource, says: []string{"sso_role_name"}},
	{name: "aws login has ended", step: diagnose.Credentials, more: sdk("failed to refresh cached credentials, create oauth2 token: login session has expired, please reauthenticate"), kind: diagnose.CredentialSource, says: []string{"Run: aws login"}},
	{name: "half a key, no secret", step: diagnose.Credentials, change: func(s *diagnose.Settings) { s.MissingVariable = "AWS_SECRET_ACCESS_KEY" }, more: sdk(imds + "canceled, context deadline exceeded"), kind: diagnose.CredentialSource, says: []string{"half of an access key", "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"}, not: []string{"hop"}},
	{name: "half a key, no id", step: diagnose.Credentials, change: func(s *diagnose.Settings) { s.MissingVariable = "AWS_ACCESS_KEY_ID" }, more: sdk(imds + "dial tcp"), kind: diagnose.CredentialSource, says: []string{"AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"}},
	{name: "half a key in the profile", step: diagnose.Credentials, change: profile, more: sdk("partial credentials found for profile deploy"), kind: diagnose.CredentialSource, says: []string{"The profile deploy has half of an access key"}},
	{name: "credential_process fails", step: diagnose.Credentials, change: profile, more: sdk("failed to refresh cached credentials, process provider error: error in credential_process: exit status 1"), kind: diagnose.CredentialSource, says: []string{"credential_process", "(profile deploy)"}},
	{name: "credential_process prints a secret", step: diagnose.Credentials, more: sdk("process provider error: parse failed of process output: {\"SecretAccessKey\": \"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\", error: unexpected end of JSON input"), kind: diagnose.CredentialSource, not: []string{"wJalr"}},
	{name: "EKS Pod Identity does not answer", step: diagnose.Credentials, more: sdk("failed to refresh cached credentials, failed to load credentials, : Get \"http://169.254.170.23/v1/credentials\": dial tcp 169.254.170.23:80: connect: connection refused"), kind: diagnose.CredentialSource, says: []string{"eks-pod-identity-agent"}},
	{name: "ECS without a task role", step: diagnose.Credentials, more: sdk("failed to refresh cached credentials, failed to load credentials, 404: Get \"http://169.254.170.2/v2/credentials/x\""), kind: diagnose.CredentialSource, says: []string{"task role"}},
	{name: "Config.AWS is empty", step: diagnose.Credentials, more: sdk("Config.AWS has no credentials; set them there or in Config.Credentials"), kind: diagnose.NoCredentials, says: []string{"Config.AWS has none", "Via"}},
}
