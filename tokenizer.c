/* tokenizer.c: text to tokens and back, and chat templates.
 *
 * A language model reads numbers. Its vocabulary is a list of pieces of text, the place of a
 * piece in the list is its token, and a tokenizer cuts text into pieces. All kinds of vocabulary
 * known here do it in the same way: begin with the smallest pieces and keep joining the two
 * neighbours that make the best one, until no two neighbours make any. They differ in this:
 *
 *                     SentencePiece (SPM)         byte-level BPE
 *   begins with       characters                  bytes
 *   the best piece    has the highest score       comes first in the list of merges
 *   text is split     nowhere                     into words beforehand, by regular expressions
 *
 * BPE of characters (Gemma 4's) begins like SPM and merges like BPE; text is split at newlines.
 *
 * Sections: Unicode, patterns (a small matcher of regular expressions), rules (which patterns split
 * text for which models), vocabulary, normalization, merging, encode, decode, making a tokenizer;
 * then the small Jinja in which model files say how a conversation becomes a text.
 */
#include "tokenizer.h"

#include <limits.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_TEXT = 1 << 30, /* bytes that encode takes */
    MAX_SPECIAL = 256,  /* bytes; longer special tokens are not looked for in text */
    MAX_PATTERNS = 8,   /* of a rule */
    MAX_STEPS = 512,    /* of a pattern */
    MAX_MEMBERS = 320   /* of all sets of a pattern */
};

#define SPACE_MARK "\xE2\x96\x81" /* U+2581, which SentencePiece writes for a space */

/* ==== Unicode ====================================================================================
 * Word-splitting rules speak of letters, digits and marks, the general categories of Unicode. The
 * table holds them as runs of code points from 0 on; tests/unicode.py makes and describes it. It is
 * unpacked to a byte for each code point.
 */

enum {
    CODE_POINTS = 0x110000,
    INVALID = CODE_POINTS,       /* + byte: a byte that is no part of a valid character */
    TEXT_END = CODE_POINTS + 256 /* what comes behind the last character */
};

/* Name i is bit i of a mask of categories. Every character also is in one of the last two. */
static const char category_names[] = "LuLlLtLmLoM NdN P S Z C ";
#define DIGIT (1u << 6)
#define SEPARATOR (1u << 10)
#define WHITE (1u << 30)
#define NOT_WHITE (1u << 31)

/* Unicode 16.0, which the tokenizers of Hugging Face go by */
static const char *const unicode_runs =
    ")kJcI$KIp$~UdU(OcIHI(PHIHI)xJH~HVDHIKqTIAUIGDHbH'gI$P'uI$_(i@N$]@N'sMA@A@[MA@AMAZNhAMAZ[MAMAY"
    "MA@N@AMAZA@AMND@[l@BA@BA@BA$]@N$j@N@BA@AZA(v@$QMAMN@AhAg@1QD(^&gq%V%wx$YCIC&`:VYCI@AXC[H@sV@H"
    "ZK@KMA&VK$k*I@NZ[%R@v@AI@AMN-_,w&cI$U(iMA$B@N-CK*pXC$K+YUXdK,SHEHRHRHE$i(aslU&bdUIUV%KHKc)dC$"
    "|'Q$~pQE7gHD$UKI$HPRImQ$~_VD%vXDE)I(bX5a%KD%y$~)q$pPIcCXEV'^mC$pC`CzX&DK(F`XHK%J$A'xI$G$i$p+]"
    "C'yK)r.K`D&iD$U$|RU$~HC&@`K$bXQX'^K$TKDflXED$UXRX`D$iEsQK_RX$~QV$JVDHEX`K$GsQX'^K$TKQKQKQXEKz"
    "sRX`fE$[lKD$[$~R_EH%D`K$oK_K'^K$TKQKyXED$cK`K`XD&GQRX$~HI$[D$HK`K$bXQX'^K$TKQKyXED$UXRX`$[`sQ"
    "K_RX$~ID$J%DEDK$Gf_KlfQKDKQfQf_f%Wszf`KmXD$NE%y$~b$g$Az$bK_K'kK&MXED$UK`Km$[RK_XDXQRX$~$[H$WI"
    "D`H$bK_K'kK$|KyXED$UK`Km$[R$NQKQRX$~KQE%_m$oK_K+]RD$UK`KmDIs_E$W_RX$~$rI$GK`K&hf'xK$oKDX$TfEs"
    "$HKEK$c$N$~XRH%_,zEQ$UsI$GC$cH$~U*nQKDKyK'xKDK$|EQ$pDXyKCK$UK$~Xl)kDd&DIHdR$L$~%@IEIEIEpR$bK*"
    "Ys'DHRy%KK*ZK$gE$LKV}qU*n+w'DD$~$K$Gml`D`Q$U_m%e%XDE$~mV*pK@$A@X+tHC[%/uKlX$TKDKlX+]KlX)qKlX$"
    "TKDKlX&@K.sKlX0yX`$s'Ff&M%B$N4tX$DXH'4vIH&ZJ(SUf2ecb$b$[&hm$v&u`U$v&hR%_%eK_KR%_-p)ecCcIDEX$~"
    "$N%@$N%N`KE$~$N*LC-}$[yR)~ED$A1b%D)VK%Xs%XsIfU$~)IXy%Q,Es(S$N$~Gf*D'kzXU-}$}K(|XE$~$N$~$N$XC$"
    "KX)W-Oz,m&[$bKU$~$X%B$p$tc`)I%fQ$~,E%s$ip*Y'Df}$~f_$~)I$FU$l@A$A+sXZ$f$i`H'QlE$GEQ`D$A,B0C%bC"
    "){*f0R2`@$l-C@$l$^$DX$CX$_$^$_$^$DX$CX$_K@K@K@K@$_$^%oX$_$`$_$`$_$`vKNhBIAd[KNhBdiXNhKd$_udX["
    "KNhBVK%P$A'|W$AJ'GI%iI%[J&TGCX$JdUC%@dUK%df)v&G)r&GV@q@VAZNZAI@du$L@I@I@IhIAhAlAVNM~@iqAI-f@A"
    "|Vs%9qp)AU$<Y'e%O'W/_3R'a'4F%v)L-MU)[%A&#['b0Ip)iU%9VX)iK8|,v,w@AZNghA@N@$DPZA-C@N$LY`@A$ApGU"
    "*qKA$AAX.f$[CH%yE'k$v$TK$TK$TK$TK$TK$TK$TK$TK)e,qC)hV%[*F(XK5f%_$3s(Z&RJcICDG%AV%[I$r$HHxVbCD"
    "HVK4xXRVPDH5nH^D$A+wK6dKVo%B)d*y$vI&M)[K%@)N$eI&C)i%@+G&C%.B$8-C0V(4,sC+2af.^$v+O$FU%#CCc&M$~"
    "Q'J'sDmH$}HC%zPR1b%@R$K$i'p$nV$O@[)_C$_YMAtCVYD@A@[%EuAuA$]hA@AMAX@AKAKAg@'W^@ADPA$TE_ElE'kzq"
    "Ef$Jq$N-pp$iR-U&i$iU$~$N&i$GcDHQE$~(n$cU'k%f%QH({fm,m%s%iKC$~sUyEC$o$~yK+]%s$v_E$bRX$~Xp&MC$G"
    "dD`-UED`QRyRDED(@QCU%JzUDPR%D$GX$GX$G$v$TK$TK+tIk$lCVs3e*L$cHRX$~$N%>5W%_'ks-H%*+J%7fX9E*{$Q%"
    "_v$ADE$|I%eKyKDKQKQK9`&`&T%6}U&R0QX.K$[I)k%Wq&N%A$N&N*PK%vIHdKHIUsyK$#JscI$KIp$~UdU(OcIHI(PHI"
    "HI$X$|C,RP)Vf$GX$GX$GX_f$YK$Y%lVX%WK(SK&uKQK&@X%r*F<i$Acs,Uf$t.v&`TdK%jfI,t,WE>N({f-H&GE(ds)d"
    "o$v'CG$bG$A*tz$A)IKH*Ys$bH|+q+K+L3MX$~$N*Us*Vs+O$i-p%QH%FK%{K$PKMK%GK%|K$QKNf-p%_%,D$v'^%D$b("
    "@$FK+iK$n1[$GXDK,EKQfDX'kKH$e'kV$W)V$i$r-B&uKQ$A|'^$JfH(S$AH0X.fsTQ&PX,cD`KR$AmlK_K({X`sE$r$["
    "$s$[({TH({b)k$bI(nRs|$X$v.Kf$X'^X$e&u$A$e&h$[p%_$W3o2J.`-_%l-`$[$J*Ym$i$~$N$~lCD'YfzHC'Z$iV$2"
    "e)YK+jKRHXQ&T_.`m({%@D$i'^%Ko}'e&hmp*{'P$W'J'k$v`-}&A$Xs'F$~EQRD$vm,R%KUKpE%l(F$[$~$N`*Y%sK$~"
    "pDRD$i*LEUD$v`,z%slpmHR$~DHDcK'F%Q&hK(F%X$KEQE/}$TKDKlK&@K$|H$N,m%X$A$~$NmK$bXQX'^K$TKQKyKRD$"
    "UXRX`XD$NE$AyRX$Ufz%Q$|KDXDK*tKD$pKEXEKmKzDEDUKU$iR)C-}&il}$~UKHE_)P,z'DQHD$i$~$)q,m$UX$p'olR"
    "*F,z&[cD%Q$~$N%i&|+w%fDH$N$~$N'E(u(aX&As$~TcI$T$-p,E&AH7{)`)a$~$r%_$bXDX$bKQK'x$HKRXmDEDRc$v$"
    "~1i$bX+B$UX$UDHDE(hD$}+O$UDm$fE$iD%K,`&NcD}%l2J$[%A$-H)qH%y$~$N$oK*g$cK$cD}%D$~&xfU)IX'_K%s2Q"
    "$TKQK*t$HfEKRK$UDE$i$~$N$GKQK)dzKRKzD$[$~%+}&umU$[RDE%eK)~$Ufz%i$~E4rD&G'S)A%lH)<K8V:KK}%Q$/|"
    "67k7LU%l+#h&TE$G&A%D$$<a$A'-F$:)W)I&i$~/>c'*J$[)VK$~sU3ZK$~$N)IXzH%D,z$U}qkHI%D$~K$WK'P$A&u&)"
    "c^+OPc$~$0_)`)a'np8I2esED.Y$[m%d0XPHCE%QR%y$4=[$i,*[+d$|%-<[kK$SKPK%'w&GD)C_XD%yl$i%=x4*y9R$A"
    "%ef$o$[$|XIRH$$0P$9P$~$N&*V2y,aX'l$v;P/c$:a%D+GX/azd$H$i$cV$U)Nm/n'W0q`I<c'F%_'F%_5K$v(I$#Q(O"
    "(P(O$QK&e(O(P@KMX@XMXhK$^iKAK$QK%G(O(PMKhX$^K$PK(PMKhKuK@f$PK(P(O(P(O(P(O(P(O(P(O(P(O(kX(BI(C"
    "I$D(BI(CI$D(BI(CI$D(BI(CI$D(BI(CI$D@AX-W&:R.Yq-V$gE%wEV}&GzK&A+*]$yD'@$N$D$3h$UK&[X$UKRKz$A/u"
    ")xE:],Rf$U$SX$~sDI%.D)IE&b,Em$~$AI&0P(aCm$~$3u)IRD$~sH&3g$TKlKQK&@K$0JX$r$U+d)z){$UCs$~sU(;d/"
    "QIbIo2y,UI&C$/ilK(aKQKDXDK$|KlKDKD$NDsDKDKDK_KQKDXDKDKDKDKDKQKDXlK$TKlKlKDK$|K&Z$A_KyK&Z-wV%#"
    "e,Js7y%_&EX&EK&EK*l%D%h$(l.m)A%l,Js$t$[V%y$L$'P*-Ps&`f%jf;xs6v$N%]sI&G%]s.k$i%B$N+T$i)NX%]sV/"
    "}%2N%_%wX%jf%B$A.k$[&EX%O$N$t$[$%pK6N$~*6{..<Q)k$&%v$N$5YX$2'A%y$>=q&G'5Q50B'$`.*o$+>]$A$&-t)"
    "9.<i$9L$;/3N";

typedef struct {
    uint32_t code; /* a code point, INVALID + byte, or TEXT_END */
    uint32_t mask; /* its category, and WHITE or NOT_WHITE */
} Char;

/* The well-formed byte sequences are those of table 3-7 of the Unicode standard. */
int tokenizer_char(const char *text, size_t len)
{
    static const struct {
        unsigned char first, last, low, high; /* of the first byte; of the second */
        int length;
    } forms[] = {
        { 0x00, 0x7F, 0x00, 0x00, 1 }, { 0xC2, 0xDF, 0x80, 0xBF, 2 }, { 0xE0, 0xE0, 0xA0, 0xBF, 3 },
        { 0xE1, 0xEC, 0x80, 0xBF, 3 }, { 0xED, 0xED, 0x80, 0x9F, 3 }, { 0xEE, 0xEF, 0x80, 0xBF, 3 },
        { 0xF0, 0xF0, 0x90, 0xBF, 4 }, { 0xF1, 0xF3, 0x80, 0xBF, 4 }, { 0xF4, 0xF4, 0x80, 0x8F, 4 },
    };
    const unsigned char *s = (const unsigned char *)text;
    size_t form = 0, count = sizeof forms / sizeof *forms;
    while (form < count && s[0] > forms[form].last) form++;
    if (form == count || s[0] < forms[form].first) return -1;
    int length = forms[form].length;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == len) return 0;
        int low = i == 1 ? forms[form].low : 0x80, high = i == 1 ? forms[form].high : 0xBF;
        if (s[i] < low || s[i] > high) return -1;
    }
    return length;
}

/* Reads the character that text (len > 0) begins with; returns its length, 1 if invalid. */
static size_t read_char(const char *text, size_t len, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    int length = tokenizer_char(text, len);
    *code = length > 0 ? length > 1 ? s[0] & (0x7Fu >> length) : s[0] : (uint32_t)INVALID + s[0];
    for (int i = 1; i < length; i++) *code = *code << 6 | (s[i] & 0x3F);
    return length > 0 ? (size_t)length : 1;
}

/* Reads a number of a packed table: digits from # to > and then a last one from @ to ~. */
static uint32_t read_number(const char **text)
{
    const char *s = *text;
    uint32_t n = 0;
    while (*s && *s < '@') n = 28 * n + (uint32_t)(*s++ - '#');
    n = 62 * n + (uint32_t)(*s - '@' - (*s > '\\')); /* a backslash would need another */
    *text = s + 1;
    return n;
}

/* Writes a character, or the byte of an invalid one; returns its length. */
static size_t write_char(char *text, uint32_t code)
{
    static const uint32_t leads[] = { 0x00, 0xC0, 0xE0, 0xF0 };
    uint32_t c = code < INVALID ? code : code - INVALID;
    int more = c == code ? (c >= 0x80) + (c >= 0x800) + (c >= 0x10000) : 0;
    text[0] = (char)(leads[more] | c >> 6 * more);
    for (int i = 1; i <= more; i++) text[i] = (char)(0x80 | (c >> 6 * (more - i) & 0x3F));
    return (size_t)more + 1;
}

/* Unpacks unicode_runs into table (CODE_POINTS). */
static void unpack_categories(uint8_t *table)
{
    size_t code = 0;
    for (const char *s = unicode_runs; *s;) {
        size_t n = read_number(&s), kind = n % 13;
        for (n = (n / 13 + 1) << (kind == 12); n > 0 && code < CODE_POINTS; n--) {
            table[code++] = (uint8_t)(kind == 12 ? n & 1 : kind); /* 12: pairs of Lu and Ll */
        }
    }
}

/* The columns of a terminal that characters take, from tests/unicode.py */
static const char *const column_runs =
    "$`'d$c$$X(W0QR/l%HA@ACACAF&V_A@%L}o@'vRDODCAI$j@$Z$P'W_%qXY@$HIAXAFAL%CF%tX%@$GA$c%eFAtAR]C$W"
    "F%k@ARDCDFY@]C$N@DF%k@ALJCDFG@$ZCG@`F%k@AUAFAF{C$BOAF%k@ARDCDFML]C$Z@%tLGFAIY@$yL%h@ARAFAISC`"
    "C$WF%k@ARAFAISC`Cl@cI%hCARAFAIY@]C$WF&V@JOA@AUuC%z@DRcU'm@DX`R&`C$Q@A@A@JC%UzACM_A$lY@'sz$EIJ"
    "FAFDRGIfbA@]I'm'h*l3vF$4oI$TF$WC$ZC&D$`Y@%IL(hC$g@(kbJb-dL%n[A$VD@%R&FlL%Oq$sXcF$Ze%kh%Rz*TFA"
    "}J@P@DF,c&C<QL$HR%Un'g$c=nEfE,JKGBDB<KE~E$NWod%CB]QGBfBVErEMEVBMB~BSEABJBDBSBJE$TB$jBABJHAB%z"
    "H$HBiB$0bE%[BJB6pF)r@'g$`)J$OA'Rc-U$N%rOmD'IDC'wM%DA%]@%AA'IY%SA$zV$92DG%i7_IA[$aC&uC0H@G@J@$"
    "ELJ@&~C%Xt$Ntf@$sU$Kec$XGI%Oh$m@&Mhc@VC%IF%X@AFDCMCA@$|LMC.XUACu6+dc&t13o;p$Z@$*hn^Pn$kAyAK*E"
    "@A'h&A@&ATYb;r@-y@*KL%;qFACMI$yFJ@*|C>lI&GL2SC$ZL$an&V_%UI(wF%bk$|@DC]I%I_S@%zF$mhoC%F@cF%RhV"
    "IAC'ZbP@D@*db~I%hCARDCDFY@]CDRGL&MXA@D@AIALA@iC&{t$E@&xz.URDX$QC&{q(Fe'vk/Vk.tOACDIA@AC)rRDRG"
    "@$T[$yRAIV@Y_%Ln,cU,fUAU&{$AAh(wOG@ACARA@&JLACAL'N@/]IYCA@%RRGL$E@,)AqPk69kt'+oL%tR$9k@A%gSI&"
    "lK@`CNY/8Z$m$h'd(cf$3Mi%]0+~KATAEA1VYB$WHDBiNS6I'*OCAI+&X%KD$D:LC%wLG$ADR$ZI*HF`FVCD@$aC)D'LY"
    "$F%;z%gJ%WV@i@$BLAk%,qRAqDRACAL's@*mR5G@%zI;cI/PC.n@D@SCM@9yR(OR%>OB,oB,JBD^xB%h$Xf%GJZSEiQ*Z"
    "$ecZA&WA$Cc%DJNcsGBG&ZABA,BD&BfKA$IuB$NEfB'H'F%R&WPBGHDNDK`ESZ-jBMdJB0j%PA^A+{(XgG&ZABGvAgGd%"
    ")I'$)~D'$)~$//2B*%I.;6D";

int tokenizer_columns(const char *text, int length)
{
    uint32_t code, n = 0;
    if (length <= 0) return 0;
    read_char(text, (size_t)length, &code);
    if (code >= INVALID) return 1;
    for (const char *s = column_runs; *s;) { /* some hundred steps, for what is typed */
        n = read_number(&s);
        if (code <= n / 3) return (int)(n % 3);
        code -= n / 3 + 1;
    }
    return 1;
}

/* The printable character as which byte-level BPE spells a byte: itself if it is one in Latin-1,
 * else one from U+0100 on, in order. */
static unsigned byte_to_char(unsigned byte)
{
    if (byte <= 32) return 256 + byte;
    if (byte >= 127 && byte <= 160) return 289 + byte - 127;
    return byte == 173 ? 323 : byte;
}

/* Reads the character at text[at], or the one that spells the byte there; returns where the next
 * one begins. */
static size_t next_char(const uint8_t *categories, int bytes, const char *text, size_t at,
                        size_t len, Char *c)
{
    *c = (Char){ TEXT_END, 0 };
    if (at >= len) return len;
    size_t length = read_char(text + at, len - at, &c->code);
    if (bytes) c->code = byte_to_char((unsigned char)text[at]);
    uint32_t code = c->code, mask = code < CODE_POINTS ? 1u << categories[code] : 0;
    int white = mask & SEPARATOR || (code >= '\t' && code <= '\r') || code == 0x85;
    c->mask = mask | (white ? WHITE : NOT_WHITE);
    return at + (bytes ? 1 : length);
}

/* ==== Patterns ===================================================================================
 * Splitting rules are published as regular expressions, where the leftmost match counts and of
 * those the one that takes the first alternatives, as in Perl. A matcher that backtracks finds it
 * too, but can take quadratic time on long runs of one character. Here a pattern becomes a
 * program, and all ways through it advance together, a character at a time, in the order in which
 * a backtracking matcher would try them (Pike's algorithm; see Russ Cox, "Regular Expression
 * Matching: the Virtual Machine Approach"). Ways that reach the same step are one from there on,
 * so no character costs more than one visit of every step.
 *
 * Known: characters, \r \n \t \s \S \d \p{Lu} \P{L}, sets [...] and [^...], groups (...) (?:...)
 * (?i:...), a|b, the quantifiers ? * + {n} {n,} {n,m}, the possessive ones *+ and ++ behind a
 * set, ?+ (read as ?, which in the published patterns is the same), lookahead at one set (?=\s)
 * (?!\S), and $: the end, or before a newline. A pattern that begins with (?-u) doesn't see
 * characters but those that byte-level BPE spells the bytes with.
 */

enum operation {
    TAKE,     /* a character of the set */
    LOOK,     /* pass if the next character is in the set */
    LOOK_NOT, /* pass if there is none in the set */
    END,      /* pass at the end of the text and before a newline */
    SPLIT,    /* go on at step + x; step + y is second choice */
    JUMP,     /* go on at step + x */
    MATCH
};

/* A set is the members x to y of its pattern, or all other characters if negated. */
typedef struct {
    enum operation operation;
    int x, y, negated;
} Step;

typedef struct {
    uint32_t low, high, mask; /* holds code points low to high and the categories of mask */
} Member;

typedef struct {
    int n_steps, n_members, bytes; /* bytes: whether it sees the spelling of bytes */
    Step steps[MAX_STEPS];
    Member members[MAX_MEMBERS];
} Pattern;

typedef struct {
    Pattern *pattern;
    const char *at; /* what is left to read */
    int ignore_case, failed;
} Compiler;

static void compile_alternatives(Compiler *c);

/* Appends a step. */
static void add_step(Compiler *c, enum operation operation, int x, int y, int negated)
{
    Pattern *p = c->pattern;
    c->failed |= p->n_steps == MAX_STEPS;
    if (!c->failed) p->steps[p->n_steps++] = (Step){ operation, x, y, negated };
}

/* Appends a member to the set that is being read. */
static void add_member(Compiler *c, Member member)
{
    Pattern *p = c->pattern;
    c->failed |= p->n_members == MAX_MEMBERS;
    if (!c->failed) p->members[p->n_members++] = member;
}

/* Reads the name of a category, {L} or {Lu}; returns its mask. */
static uint32_t read_category(Compiler *c)
{
    uint32_t mask = 0;
    size_t len = strcspn(c->at, "}");
    for (int i = 0; category_names[2 * i] && (len == 2 || len == 3); i++) {
        if (strncmp(c->at + 1, category_names + 2 * i, len - 1) == 0) mask |= 1u << i;
    }
    c->failed |= mask == 0;
    c->at += mask ? len + 1 : 0;
    return mask;
}

/* Reads a character or a class. */
static Member read_member(Compiler *c)
{
    static const struct {
        char name;
        Member member;
    } escapes[] = {
        { 's', { 1, 0, WHITE } },   { 'S', { 1, 0, NOT_WHITE } }, { 'd', { 1, 0, DIGIT } },
        { 'r', { '\r', '\r', 0 } }, { 'n', { '\n', '\n', 0 } },   { 't', { '\t', '\t', 0 } },
    };
    uint32_t code = 0;
    int escaped = *c->at == '\\';
    c->at += escaped;
    char name = *c->at;
    c->failed |= name == 0;
    if (name) c->at += read_char(c->at, 4, &code); /* no character goes on behind the final 0 */
    if (escaped && name == 'p') return (Member){ 1, 0, read_category(c) };
    if (escaped && name == 'P') return (Member){ 1, 0, ~read_category(c) & ~(WHITE | NOT_WHITE) };
    for (size_t i = 0; escaped && i < sizeof escapes / sizeof *escapes; i++) {
        if (name == escapes[i].name) return escapes[i].member;
    }
    c->failed |= escaped && name && !strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", name);
    return (Member){ code, code, 0 };
}

/* Adds a character, and its other case if case doesn't count, or a class. */
static void add_cases(Compiler *c, Member member)
{
    uint32_t code = member.low, lower = code | 0x20;
    add_member(c, member);
    if (!c->ignore_case || lower < 'a' || lower > 'z') return;
    add_member(c, (Member){ code ^ 0x20, code ^ 0x20, 0 });
    if (lower == 's') add_member(c, (Member){ 0x17F, 0x17F, 0 });   /* long s */
    if (lower == 'k') add_member(c, (Member){ 0x212A, 0x212A, 0 }); /* Kelvin sign */
}

/* Reads [...], a class or a character, and appends a step with this set. */
static void compile_set(Compiler *c, enum operation operation)
{
    int first = c->pattern->n_members, brackets = *c->at == '[';
    int negated = brackets && c->at[1] == '^';
    c->failed |= *c->at && strchr("*+?{.^", *c->at) != NULL;
    c->at += brackets + negated;
    do {
        Member member = read_member(c);
        if (brackets && c->at[0] == '-' && c->at[1] != ']') {
            c->at++;
            member.high = read_member(c).high;
            add_member(c, member);
        } else {
            add_cases(c, member);
        }
    } while (brackets && *c->at != ']' && !c->failed);
    c->at += brackets && *c->at == ']';
    add_step(c, operation, first, c->pattern->n_members, negated);
}

/* Reads (...), (?:...), (?i:...), (?=set) or (?!set). */
static void compile_group(Compiler *c)
{
    int ignore_case = c->ignore_case;
    if (strncmp(c->at, "(?=", 3) == 0 || strncmp(c->at, "(?!", 3) == 0) {
        c->at += 3;
        compile_set(c, c->at[-1] == '=' ? LOOK : LOOK_NOT);
    } else {
        int fold = strncmp(c->at, "(?i:", 4) == 0;
        c->ignore_case |= fold;
        c->at += fold ? 4 : strncmp(c->at, "(?:", 3) == 0 ? 3 : 1;
        compile_alternatives(c);
    }
    c->ignore_case = ignore_case;
    c->failed |= *c->at != ')';
    c->at += *c->at == ')';
}

/* Repeats the steps from start on at least `least` and at most `most` times, -1: without end. */
static void repeat_steps(Compiler *c, int start, int least, int most)
{
    Pattern *p = c->pattern;
    Step body[MAX_STEPS];
    int size = p->n_steps - start, copies = most < 0 ? least + 1 : most;
    memcpy(body, p->steps + start, (size_t)size * sizeof *body);
    p->n_steps = start;
    for (int i = 0; i < copies && !c->failed; i++) {
        if (i >= least) add_step(c, SPLIT, 1, most < 0 ? size + 2 : (most - i) * (size + 1), 0);
        for (int k = 0; k < size; k++) {
            add_step(c, body[k].operation, body[k].x, body[k].y, body[k].negated);
        }
    }
    if (most < 0) add_step(c, JUMP, -size - 1, 0, 0);
}

/* Reads a quantifier for the steps from start on; returns whether there is one. */
static int compile_quantifier(Compiler *c, int start)
{
    char kind = *c->at;
    if (c->failed || !kind || !strchr("?*+{", kind)) return 0;
    long least = kind == '+', most = kind == '?' ? 1 : -1;
    if (kind == '{') {
        char *end;
        least = most = strtol(c->at + 1, &end, 10);
        if (*end == ',') {
            most = end[1] == '}' ? -1 : strtol(end + 1, NULL, 10);
            end += strcspn(end, "}");
        }
        c->failed |= *end != '}' || least < 0 || least > MAX_STEPS || most > MAX_STEPS;
        c->at = end;
    }
    c->at += *c->at != 0;
    if (c->failed) return 0;
    Step set = c->pattern->steps[start];
    repeat_steps(c, start, (int)least, (int)most);
    if (kind != '{' && *c->at == '+') { /* possessive: no more of the set may follow */
        c->at++;
        if (kind != '?') add_step(c, LOOK_NOT, set.x, set.y, set.negated);
    }
    return 1;
}

/* Reads a|b|c: a SPLIT goes in front of a, and a JUMP behind it leads over the others. */
static void compile_alternatives(Compiler *c)
{
    Pattern *p = c->pattern;
    int first = p->n_steps;
    while (*c->at && *c->at != '|' && *c->at != ')' && !c->failed) {
        int start = p->n_steps;
        if (*c->at == '(') {
            compile_group(c);
        } else if (*c->at == '$') {
            c->at++;
            add_step(c, END, 0, 0, 0);
        } else {
            compile_set(c, TAKE);
        }
        while (compile_quantifier(c, start)) { /* x{1,3}+ repeats x{1,3} */
        }
    }
    if (*c->at != '|' || c->failed) return;
    c->at++;
    int size = p->n_steps - first, jump = first + size + 1;
    add_step(c, SPLIT, 1, size + 2, 0);
    add_step(c, JUMP, 0, 0, 0);
    if (c->failed) return;
    Step split = p->steps[first + size];
    memmove(p->steps + first + 1, p->steps + first, (size_t)size * sizeof split);
    p->steps[first] = split;
    compile_alternatives(c);
    p->steps[jump].x = p->n_steps - jump;
}

/* Compiles a pattern; -1 if it is too long or has something unknown. */
static int compile_pattern(Pattern *p, const char *text)
{
    Compiler c = { .pattern = p, .at = text };
    p->n_steps = p->n_members = 0;
    p->bytes = strncmp(text, "(?-u)", 5) == 0;
    c.at += p->bytes ? 5 : 0;
    compile_alternatives(&c);
    add_step(&c, MATCH, 0, 0, 0);
    return c.failed || *c.at ? -1 : 0;
}

/* A way through the pattern: the step it is at and where its match begins. */
typedef struct {
    int step;
    size_t from;
} Way;

typedef struct {
    const uint8_t *categories;
    const Pattern *pattern;
    Char ahead;      /* the character that the ways will see next */
    Way *now, *next; /* (MAX_STEPS) the preferred ones first */
    int n_next;
    uint32_t round;
    uint32_t seen[MAX_STEPS]; /* the round in which a way last reached each step */
    Way ways[2][MAX_STEPS];
} Search;

/* Whether the set of this step holds the character. */
static int in_set(const Pattern *p, const Step *step, Char c)
{
    int found = 0;
    for (int i = step->x; i < step->y && !found; i++) {
        const Member *m = &p->members[i];
        found = c.mask & m->mask || (c.code >= m->low && c.code <= m->high);
    }
    return found != step->negated && c.code != TEXT_END;
}

/* Brings a way to a step, and on from there up to where it has to take a character. */
static void reach(Search *s, int number, size_t from)
{
    const Step *step = &s->pattern->steps[number];
    if (s->seen[number] == s->round) return;
    s->seen[number] = s->round;
    switch (step->operation) {
    default: /* TAKE, MATCH */
        s->next[s->n_next++] = (Way){ number, from };
        return;
    case LOOK:
        number += in_set(s->pattern, step, s->ahead);
        break;
    case LOOK_NOT:
        number += !in_set(s->pattern, step, s->ahead);
        break;
    case END:
        number += s->ahead.code == TEXT_END || s->ahead.code == '\n';
        break;
    case SPLIT:
        reach(s, number + step->x, from);
        number += step->y;
        break;
    case JUMP:
        number += step->x;
        break;
    }
    reach(s, number, from); /* where it cannot pass it stays at its step, which has been seen */
}

/* Begins a round: no step is reached yet. */
static void next_round(Search *s)
{
    Way *now = s->next;
    s->next = s->now;
    s->now = now;
    s->n_next = 0;
    if (++s->round == 0) { /* after 2^32 rounds old marks would look like new ones */
        memset(s->seen, 0, sizeof s->seen);
        s->round = 1;
    }
}

/* Finds the leftmost match in text (len) from at on that isn't empty; returns whether there is
 * one. */
static int search(Search *s, const Pattern *p, const char *text, size_t len, size_t at,
                  size_t *from, size_t *to)
{
    int found = 0;
    size_t next = next_char(s->categories, p->bytes, text, at, len, &s->ahead);
    s->pattern = p;
    next_round(s);
    for (;;) {
        if (!found) reach(s, 0, at); /* a match could begin here; earlier ones are preferred */
        if (found && s->n_next == 0) return 1;
        Char c = s->ahead;
        size_t after = next_char(s->categories, p->bytes, text, next, len, &s->ahead);
        int n = s->n_next;
        next_round(s);
        for (int i = 0; i < n; i++) {
            const Way *way = &s->now[i];
            const Step *step = &p->steps[way->step];
            if (step->operation == TAKE) {
                if (in_set(p, step, c)) reach(s, way->step + 1, way->from);
            } else if (at > way->from) {
                found = 1;
                *from = way->from;
                *to = at;
                break; /* the ways that follow are less preferred */
            }
        }
        if (at >= len) return found;
        at = next;
        next = after;
    }
}

/* ==== Rules ======================================================================================
 * Which patterns split text into words before merging; a model file names its rule. The patterns
 * are applied one after the other: each splits the pieces that the one before it left into its
 * matches and what lies between them, and sees every piece as a text of its own.
 */

enum {
    IGNORE_MERGES = 1, /* a word that is a token as a whole is that token, wherever merges lead */
    NFC = 2,           /* text is normalized to the canonical composed form first */
    WHOLE_NEWLINES = 4 /* IGNORE_MERGES for words of newlines */
};

typedef struct {
    const char *names; /* separated by spaces */
    int flags;
    const char *patterns[MAX_PATTERNS];
} Rule;

/* Letters that have case, by number since a few would change under Unicode normalization. */
#define CASED_WORDS \
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-" \
    "\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1" \
    "\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-" \
    "\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18" \
    "-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4" \
    "\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2" \
    "-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-" \
    "\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-" \
    "\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-" \
    "\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-" \
    "\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-" \
    "\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+"

/* The characters of \w besides letters, marks and decimal digits. */
#define WORD_CHARS \
    "_\u00B2\u00B3\u00B9\u00BC-\u00BE\u16EE-\u16F0\u203F\u2040\u2054\u2160-\u2182\u2185-\u2188" \
    "\u24B6-\u24E9\u3007\u3021-\u3029\u3038-\u303A\uA6E6-\uA6EF\uFE33\uFE34\uFE4D-\uFE4F" \
    "\uFF3F\U00010140-\U00010174\U00010341\U0001034A\U000103D1-\U000103D5\U00012400-" \
    "\U0001246E\U0001F130-\U0001F149\U0001F150-\U0001F169\U0001F170-\U0001F189"

#define CJK_WORDS "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define ENDINGS "'s|'t|'re|'ve|'m|'ll|'d"
#define GPT2_WORDS ENDINGS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* The punctuation of Unicode 8.0, which the step "Punctuation" of Hugging Face goes by. */
#define PUNCTUATION \
    "(?:(?![\u061D\u09FD\u0A76\u0C77-\u0C84\u1B4E\u1B4F\u1B7D-\u1B7F\u2E43-\u2E5D\U00010D6E" \
    "\U00010EAD-\U00010F89\U000113D4-\U000113D8\U0001144B-\U0001145D\U00011660-\U0001166C" \
    "\U000116B9-\U00011C71\U00011EF7-\U00011FFF\U00012FF1\U00012FF2\U00016D6D-\U00016FE2" \
    "\U0001E5FF-\U0001E95F])[\\p{P}$+<=>^~|`\u166D\U000111C9])+"

/* OpenAI's patterns for GPT-4 and GPT-4o, which most others vary. */
#define GPT4_WORDS(letters, digits) \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?[" letters "]+|\\p{N}" digits "| ?[^\\s" letters \
    "\\p{N}]+[\\r\\n]*" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define GPT4O_WORDS(ending, digits) \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER \
    "*" ending "|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES

#define DEEPSEEK3_WORDS \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+" \
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES

/* To add one: a row with the names that files give it (tokenizer.ggml.pre) and the patterns from
 * the pre_tokenizer of the model's tokenizer.json, in order. There "Digits" means \p{N}+, or
 * \p{N} with individual_digits; "Punctuation" means PUNCTUATION, and "ByteLevel" with use_regex
 * means GPT2_WORDS. What comes behind ByteLevel sees bytes: (?-u). NFC is set where the
 * normalizer is NFC (exaone's is NFKC, of which this is the canonical part). As lookahead sees one
 * character, \d{1,3}(?=(?:\d{3})*\b), digits in threes from the right, becomes several patterns, of
 * which one splits off a multiple of three; with "MergedWithNext" the pattern also takes what is
 * up to the next match. The first row also serves files that name no rule, or one that isn't
 * here. */
static const Rule rules[] = {
    { "default gpt-2 phi-2 gigachat a.x-4.0 mellum jais trillion", 0, { GPT2_WORDS } },
    { "gpt-neox olmo mpt exaone4", NFC, { GPT2_WORDS } },
    { "smollm starcoder refact codeshell minerva-7b mellum2", 0, { "\\p{N}", GPT2_WORDS } },
    { "command-r exaone", NFC, { "\\p{N}", GPT2_WORDS } },
    { "falcon", 0, { PUNCTUATION, GPT2_WORDS, "(?-u)\\p{N}+", "(?-u)[0-9][0-9][0-9]" } },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 glm4 glm5 smaug-bpe",
      IGNORE_MERGES,
      { GPT4_WORDS("\\p{L}", "{1,3}") } },
    { "dbrx lfm2 chatglm-bpe", 0, { GPT4_WORDS("\\p{L}", "{1,3}") } },
    { "qwen2 deepseek-r1-qwen stablelm2", NFC, { GPT4_WORDS("\\p{L}", "") } },
    { "megrez kormo hunyuan bailingmoe bailingmoe2 solar-open grok-2",
      0,
      { GPT4_WORDS("\\p{L}", "") } },
    { "qwen35", NFC, { GPT4_WORDS("\\p{L}\\p{M}", "") } },
    { "minicpm5", IGNORE_MERGES, { "\\p{N}{1,3}", GPT4_WORDS("\\p{L}", "+") } },
    { "laguna",
      0,
      { "(?:\\r?\\n)+(?:[^\\r\\n]|\\r(?!\\n))*", GPT4_WORDS("\\p{L}", "") } },
    { "seed-coder",
      0,
      { "(?i:" ENDINGS
        ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" SPACES } },
    { "gpt-4o llama4 kanana2 talkie",
      IGNORE_MERGES,
      { GPT4O_WORDS("(?i:" ENDINGS ")?", "{1,3}") } },
    { "cohere2moe tiny_aya",
      0,
      { "\\d+(?![\\p{L}\\p{M}\\d" WORD_CHARS "])", "(?:\\d{3})+$",
        GPT4O_WORDS("(?i:" ENDINGS ")?", "{1,3}") } },
    { "tekken", IGNORE_MERGES, { GPT4O_WORDS("", "") } },
    { "deepseek-llm",
      0,
      { "[\\r\\n]", CASED_WORDS,
        "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", "\\s+$", CJK_WORDS,
        "\\p{N}" } },
    { "deepseek-coder", 0, { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_WORDS, "\\p{N}" } },
    { "deepseek-v3 hunyuan-dense joyai-llm",
      0,
      { "\\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+", DEEPSEEK3_WORDS } },
    { "afmoe",
      0,
      { "(?:\\d{3})+(?!\\d)", "\\d{1,3}",
        "[\u4E00-\u9FFF\u3040-\u30FF\u3400-\u4DBF\uF900-\uFAFF\uFF65-\uFF9F\u2F00-\u2FDF]+"
        "|[\u0E00-\u0E7F]+|[\u0E80-\u0EFF]+|[\u1780-\u17FF]+"
        "|[\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF]+|[\uAC00-\uD7AF\u1100-\u11FF]+",
        DEEPSEEK3_WORDS } },
};

/* SentencePiece has no rules. But where no piece goes on behind the end of a word, merging word by
 * word gives the same as merging the whole text, and takes less memory. */
#define SPACED_WORDS "[ \u2581]+[^ \u2581]*|[^ \u2581]+"
static const Rule whole_text = { "", 0, { NULL } };
static const Rule text_words = { "", 0, { SPACED_WORDS } };
static const Rule whole_lines = { "", WHOLE_NEWLINES, { "\n+" } };
static const Rule line_words = { "", WHOLE_NEWLINES, { "\n+", SPACED_WORDS } };

/* The kinds of vocabulary. To add one: a row. */
typedef struct {
    int characters; /* pieces are of characters, U+2581 is a space, and <0x0A> is a byte of what no
                       piece spells; 0: pieces are of bytes in the spelling of byte-level BPE */
    int merges;     /* the best piece comes first in the list of merges; 0: has the highest score */
    const Rule *words, *joined; /* if no piece goes on behind a word, and if one does; NULL: the
                                   rule that the file names */
} VocabKind;

static const VocabKind vocab_kinds[] = {
    [TOKENIZER_SPM] = { 1, 0, &text_words, &whole_text },
    [TOKENIZER_BPE] = { 0, 1, NULL, NULL },
    [TOKENIZER_CHARACTER_BPE] = { 1, 1, &line_words, &whole_lines },
};

/* The rule of this name, or NULL. */
static const Rule *find_rule(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        for (const char *s = rules[i].names; *s; s += strcspn(s, " "), s += *s == ' ') {
            if (strcspn(s, " ") == len && strncmp(s, name, len) == 0) return &rules[i];
        }
    }
    return NULL;
}

/* ==== Vocabulary =================================================================================
 * Hash tables with a 64-bit key for each entry: the hash of a spelling leads to the token, the
 * two tokens of a merge lead to the token they make, and the hash of the first bytes of a special
 * token says that one begins so. The bytes that the tokens stand for are unpacked once, so that
 * decode only has to copy them.
 */

enum { NO_TOKEN = -1 };

typedef struct {
    uint64_t key; /* 0: the slot is empty */
    uint32_t rank;
    int id;
} Slot;

typedef struct {
    Slot *slots;
    size_t size, used; /* size: a power of two, or 0 */
} Table;

/* What a token is to encode. Its type tells, and its form where types tell too little: files have
 * marks of type USER_DEFINED, NORMAL or without types, and byte tokens of type NORMAL. */
enum role {
    UNREACHABLE, /* no text becomes it */
    PIECE,       /* a piece of text */
    CUT_OUT,     /* cut out of text before anything else: user-defined */
    MARK,        /* the same, but only where TOKENIZER_SPECIAL is set: what a chat, a thought or a
                    call of a tool is marked with */
    SINGLE_BYTE
};

struct tokenizer {
    tokenizer_vocab vocab;
    const VocabKind *kind;
    Table spellings;          /* hash of a spelling -> token */
    size_t longest;           /* spelling, in bytes */
    uint8_t *roles;           /* (n_tokens) enum role */
    char *raw;                /* the bytes that the tokens stand for, one after the other */
    size_t *raw_at;           /* (n_tokens + 1) where those of each token begin */
    int byte_tokens[256];     /* the token of each single byte, or NO_TOKEN */
    Table special;            /* hash of the first bytes of a special token -> token or NO_TOKEN */
    char special_begins[256]; /* whether a special token begins with this byte */
    int swallowing;           /* special tokens from here on take the white space behind them */
    Table merges;             /* BPE: left token << 32 | right token, plus 1 -> rank and token */
    const Rule *rule;
    int n_patterns;
    Pattern *patterns;   /* (n_patterns) */
    uint8_t *categories; /* (CODE_POINTS) */
    Table canonical;     /* NFC: canonical_forms */
    char warning[256];
};

/* Writes a sentence into error (size), which may be NULL. */
__attribute__((format(printf, 3, 4))) static void set_error(char *error, size_t size,
                                                            const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (error && size > 0) vsnprintf(error, size, format, arguments);
    va_end(arguments);
}

/* FNV-1a, a byte at a time; begins with HASH_START. */
#define HASH_START 0xCBF29CE484222325u
static uint64_t hash_byte(uint64_t hash, char byte)
{
    return (hash ^ (unsigned char)byte) * 0x100000001B3u;
}

/* The key of a spelling. */
static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < len; i++) {
        hash = hash_byte(hash, text[i]);
    }
    return hash ? hash : 1;
}

/* The slot with this key, or the empty one where it belongs. */
static Slot *find_slot(const Table *table, uint64_t key)
{
    uint64_t spread = key * 0x9E3779B97F4A7C15u; /* keys of merges differ in few bits */
    for (size_t i = spread >> 32;; i++) {
        Slot *slot = &table->slots[i & (table->size - 1)];
        if (slot->key == key || slot->key == 0) return slot;
    }
}

/* The entry with this key, or NULL. */
static const Slot *look_up(const Table *table, uint64_t key)
{
    const Slot *slot = table->size ? find_slot(table, key) : NULL;
    return slot && slot->key ? slot : NULL;
}

/* The slot of this key, made if there is none (rank 0, NO_TOKEN); NULL when out of memory. */
static Slot *add_slot(Table *table, uint64_t key)
{
    if (table->used >= table->size / 2) {
        Table larger = { .size = table->size ? 2 * table->size : 256, .used = table->used };
        larger.slots = calloc(larger.size, sizeof *larger.slots);
        if (!larger.slots) return NULL;
        for (size_t i = 0; i < table->size; i++) {
            if (table->slots[i].key) *find_slot(&larger, table->slots[i].key) = table->slots[i];
        }
        free(table->slots);
        *table = larger;
    }
    Slot *slot = find_slot(table, key);
    if (!slot->key) {
        *slot = (Slot){ key, 0, NO_TOKEN };
        table->used++;
    }
    return slot;
}

/* The type of a token; what is no known type is text. */
static int type_of(const tokenizer *t, int id)
{
    int type = t->vocab.types ? t->vocab.types[id] : TOKEN_NORMAL;
    return type >= TOKEN_NORMAL && type <= TOKEN_BYTE ? type : TOKEN_NORMAL;
}

/* Whether a token is no part of the text proper. */
static int is_control(const tokenizer *t, int id)
{
    return type_of(t, id) == TOKEN_CONTROL || type_of(t, id) == TOKEN_UNKNOWN;
}

int tokenizer_is_special(const tokenizer *t, int id)
{
    return id >= 0 && id < t->vocab.n_tokens && (t->roles[id] == MARK || t->roles[id] == CUT_OUT);
}

int tokenizer_find(const tokenizer *t, const char *text, size_t len)
{
    if (len == 0 || len > t->longest) return NO_TOKEN;
    const Slot *slot = look_up(&t->spellings, hash_text(text, len));
    if (!slot) return NO_TOKEN;
    tokenizer_text token = t->vocab.tokens[slot->id];
    return token.len == len && memcmp(token.data, text, len) == 0 ? slot->id : NO_TOKEN;
}

/* The same for what plain text may become: "</s>" and "<0x0A>" in it are just characters. */
static int find_piece(const tokenizer *t, const char *text, size_t len)
{
    int id = tokenizer_find(t, text, len);
    return id >= 0 && (t->roles[id] == PIECE || t->roles[id] == CUT_OUT) ? id : NO_TOKEN;
}

/* Fills the table of spellings: the first of equal ones counts, empty ones never. */
static int index_spellings(tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        tokenizer_text token = t->vocab.tokens[id];
        if (token.len == 0) continue;
        Slot *slot = add_slot(&t->spellings, hash_text(token.data, token.len));
        if (!slot) return -1;
        if (slot->id == NO_TOKEN) slot->id = id;
        if (token.len > t->longest) t->longest = token.len;
    }
    return 0;
}

/* The byte that a character spells, -1: none. */
static int char_to_byte(unsigned code)
{
    if (code >= 256 && code <= 288) return (int)code - 256;
    if (code >= 289 && code <= 322) return (int)code - 289 + 127;
    return code == 323 ? 173 : code < 256 && byte_to_char(code) == code ? (int)code : -1;
}

/* Writes bytes as byte-level BPE spells them, at most twice as many; returns how many. */
static size_t spell(char *spelling, const char *bytes, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        n += write_char(spelling + n, byte_to_char((unsigned char)bytes[i]));
    }
    return n;
}

/* The byte that a token spelt like <0x0A> stands for, -1: it isn't spelt so. */
static int byte_value(tokenizer_text token)
{
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    if (token.len != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>') return -1;
    const char *high = memchr(digits, token.data[3], 32), *low = memchr(digits, token.data[4], 32);
    return high && low ? (int)((high - digits) % 16 * 16 + (low - digits) % 16) : -1;
}

/* Names of HTML elements that are text in tags: Gemma's vocabulary has user-defined tokens for
 * <table>, </h1> and the like, which its models have read in web pages. Sorted. */
static const char *const html_names[] = {
    "a", "b", "blockquote", "body", "br", "caption", "code", "dd", "del", "div", "dl", "dt", "em",
    "h1", "h2", "h3", "h4", "h5", "h6", "head", "hr", "html", "i", "img", "ins", "kbd", "li",
    "ol", "p", "pre", "s", "small", "span", "strong", "sub", "sup", "table", "tbody", "td",
    "tfoot", "th", "thead", "title", "tr", "u", "ul",
};

/* Whether all bytes are in the ranges: "az09" are those from a to z and from 0 to 9. */
static int made_of(const char *text, size_t len, const char *ranges)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char *r = (const unsigned char *)ranges, c = (unsigned char)text[i];
        while (*r && (c < r[0] || c > r[1])) r += 2;
        if (!*r) return 0;
    }
    return 1;
}

static int is_html(const tokenizer *t, const char *name, size_t len)
{
    /* but <s> begins a text in vocabularies that don't have other tags as well */
    if (len == 1 && *name == 's') return tokenizer_find(t, "<strong>", 8) >= 0;
    for (size_t i = 0; i < sizeof html_names / sizeof *html_names; i++) {
        if (strlen(html_names[i]) == len && memcmp(html_names[i], name, len) == 0) return 1;
    }
    return 0;
}

/* Whether a text looks like a mark. To add a form: a row. */
static int looks_like_mark(const tokenizer *t, const char *text, size_t len)
{
    static const char visible[] = "!~\x80\xFF", name_chars[] = "azAZ09__--..::\x80\xFF";
    static const struct {
        const char *open, *close, *first, *rest; /* ranges of what is between them */
        size_t least;                            /* bytes between them */
    } forms[] = {
        { "<|", "|>", visible, visible, 1 },           /* <|im_end|> */
        { "<\uFF5C", "\uFF5C>", visible, visible, 1 }, /* DeepSeek's wide bars */
        { "[|", "|]", visible, visible, 1 },           /* [|endofturn|] */
        { "</", ">", "azAZ", name_chars, 1 },          /* </think> */
        { "<|", ">", "azAZ", name_chars, 1 },          /* <|channel>, Gemma 4's, */
        { "<", "|>", "azAZ", name_chars, 1 },          /* and its end <channel|> */
        { "<", ">", "azAZ", name_chars, 1 },           /* <end_of_turn> */
        { "[/", "]", "AZ__", "AZ__", 2 },              /* [/INST] */
        { "[", "]", "AZ__", "AZ__", 2 },               /* [TOOL_CALLS] */
        { "[gMASK", "]", "", "", 0 },                  /* GLM's */
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        size_t open = strlen(forms[i].open), close = strlen(forms[i].close), n = len - open - close;
        const char *name = text + open;
        if (len < open + close + forms[i].least || memcmp(text, forms[i].open, open) ||
            memcmp(text + len - close, forms[i].close, close)) {
            continue;
        }
        int tag = *forms[i].close == '>';
        if (tag && is_html(t, name, n)) return 0;
        int begins = made_of(name, n > 0, forms[i].first);
        if (begins && made_of(name, n, forms[i].rest)) return 1;
    }
    return 0;
}

/* What a token is to encode; raw: what it stands for. In byte-level BPE <0x0A> may be text. */
static enum role role_of(const tokenizer *t, int id, const char *raw, size_t len)
{
    int type = type_of(t, id), byte = byte_value(t->vocab.tokens[id]) >= 0;
    if (is_control(t, id)) return MARK;
    if (byte && (type == TOKEN_BYTE || (type == TOKEN_NORMAL && t->kind->characters))) {
        return SINGLE_BYTE;
    }
    if (type != TOKEN_NORMAL && type != TOKEN_USER_DEFINED) return UNREACHABLE;
    if (looks_like_mark(t, raw, len)) return MARK;
    return type == TOKEN_NORMAL ? PIECE : CUT_OUT;
}

/* Writes the bytes that a token stands for, no more than its spelling has, and finds its role;
 * returns how many. */
static size_t unpack_token(tokenizer *t, int id, char *raw)
{
    tokenizer_text token = t->vocab.tokens[id];
    int characters = t->kind->characters, type = type_of(t, id);
    int plain = is_control(t, id) || (type == TOKEN_USER_DEFINED && !characters);
    size_t n = 0;
    for (size_t i = 0, len; i < token.len; i += len) {
        uint32_t code;
        len = read_char(token.data + i, token.len - i, &code);
        int byte = plain ? -1 : characters ? (code == 0x2581 ? ' ' : -1) : char_to_byte(code);
        if (byte >= 0) {
            raw[n++] = (char)byte;
        } else {
            memcpy(raw + n, token.data + i, len);
            n += len;
        }
    }
    t->roles[id] = (uint8_t)role_of(t, id, raw, n);
    if (t->roles[id] != SINGLE_BYTE) return n;
    raw[0] = (char)byte_value(token);
    return 1;
}

/* Unpacks all tokens, and finds the tokens of single bytes. */
static int unpack_tokens(tokenizer *t)
{
    size_t n = (size_t)t->vocab.n_tokens, total = 1;
    for (size_t id = 0; id < n; id++) {
        size_t len = t->vocab.tokens[id].len;
        total = len < SIZE_MAX - total ? total + len : SIZE_MAX; /* as good as no memory */
    }
    t->raw = malloc(total);
    t->raw_at = calloc(n + 1, sizeof *t->raw_at);
    t->roles = calloc(n, sizeof *t->roles);
    if (!t->raw || !t->raw_at || !t->roles) return -1;
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        t->raw_at[id + 1] = t->raw_at[id] + unpack_token(t, id, t->raw + t->raw_at[id]);
    }
    for (int byte = 0; byte < 256; byte++) {
        char spelling[2], raw = (char)byte;
        int id = find_piece(t, spelling, spell(spelling, &raw, 1));
        t->byte_tokens[byte] = t->kind->characters ? NO_TOKEN : id;
    }
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        int byte = t->roles[id] == SINGLE_BYTE ? byte_value(t->vocab.tokens[id]) : -1;
        if (byte >= 0 && t->byte_tokens[byte] == NO_TOKEN) t->byte_tokens[byte] = id;
    }
    return 0;
}

/* Fills the table of special tokens, with an entry for each way in which one begins. */
static int index_special(tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        const char *raw = t->raw + t->raw_at[id];
        size_t len = t->raw_at[id + 1] - t->raw_at[id];
        if (!tokenizer_is_special(t, id) || len == 0 || len > MAX_SPECIAL) continue;
        uint64_t hash = HASH_START;
        Slot *slot = NULL;
        for (size_t i = 0; i < len; i++) {
            hash = hash_byte(hash, raw[i]);
            slot = add_slot(&t->special, hash | 1);
            if (!slot) return -1;
        }
        if (slot->id == NO_TOKEN) slot->id = id;
        t->special_begins[(unsigned char)raw[0]] = 1;
    }
    return 0;
}

/* Whether text may become this special token. */
static int is_wanted(const tokenizer *t, int id, int flags)
{
    int defined = flags & TOKENIZER_USER_DEFINED && type_of(t, id) == TOKEN_USER_DEFINED;
    return t->roles[id] == CUT_OUT || flags & TOKENIZER_SPECIAL || defined;
}

/* The longest special token that text (len > 0) begins with, or NO_TOKEN; writes its length. */
static int find_special(const tokenizer *t, const char *text, size_t len, int flags, size_t *length)
{
    int best = NO_TOKEN;
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < len && t->special_begins[(unsigned char)text[0]]; i++) {
        hash = hash_byte(hash, text[i]);
        const Slot *slot = look_up(&t->special, hash | 1);
        if (!slot) break;
        int id = slot->id;
        if (id == NO_TOKEN || !is_wanted(t, id, flags)) continue;
        if (t->raw_at[id + 1] - t->raw_at[id] != i + 1) continue;
        if (memcmp(t->raw + t->raw_at[id], text, i + 1) != 0) continue; /* an equal hash */
        best = id;
        *length = i + 1;
    }
    return best;
}

/* ==== Normalization ==============================================================================
 * Many characters have two spellings in Unicode: U+00E9 is also U+0065 and U+0301. Some models
 * want all text in normalization form C: characters are taken apart as far as possible, the marks
 * behind a character are sorted by their combining class, and then what can be joined is joined.
 * The table, which tests/unicode.py makes and describes, becomes a hash table.
 */

/* Unicode 9.0, which the normalizer of Hugging Face goes by */
static const char *const canonical_forms =
    "%n;q$C)LDPDHE,kA,^FNB+7wB&kH+;SDPDHE+kA+^FNB+6wB&kp+DZ-bHuJeH+2KF+0sHuJeH+2KF+1DABO(CABz$yAB$"
    "U'_ABNZAB*p)kD]BDBaF}F[DaH'[DDBDBDFDFDDDA%qAa$L+)OCZ^%JCZ&=e*;BABGNABGNABGNABGNABGNABGNABGNAB"
    "GNABGNABGNABHPGNABGNAB$X&J$Aa&rB$C,'xB%NB$|B,iB,`B+5kA+2KA+2iA+2SA&fA+6iB+2^ALB'GB+7yB+7rA(BG"
    "'xB$NB|B+iB+`B+4kA+2KA+2iA+2SA%fA+5iB+2^ALB&GB+6yB+6rA'Bo3wZ*>}C+/lADA+*gC(wE'hE(NA'OC+,nD$OF"
    "+0wC+/lADA+*gC(wE'hE(NA'OC+,nD$OF+1HABO'zABz$yAB[$LABx&HABNZAB*p+%IDDBBBBFDFDDBH{DBBBBBF{FBDB"
    "A$~A$BG$H$C$cGRY%RGR&=c*;HABGNABGNABGNABGNABGNABGNABGNABGNABGNABGNABHPGNABGNAB$X&H$Aa$CB$C,'x"
    "B%PB$~B%iAPA%pA&RE&ED'XB'IB'{BDA+3TG+8EB$PB~B$iAPA$pA%RE%ED&XB&IB&{BDA+3T'/_wABWsABScABzB$C+;"
    "[D+:aD+7OE%rAHF'oA+3HC'@H+;YD+9aD+7OE$rAHF&oA+3HC'@$K%bHuJeN$WHuJeN$GAB%b$XABNZAB$[B$C+:KDeB+"
    "2{B+2IF$FF}D)]H,tDeB+2{B+2IF$FF}D)]$M%nBHO%XACF%nHTBHO%XACF%n&umAB|YABG%cAB(m+6wH$BLaL$rH$BLa"
    "$U*=zKXUUKX&:I*/sABd$HAB$CD$C+5YDeBTB]F$FF}L&WDeBTB]F$FF}*A+/wAB(s0PH$BLaL$rH$BLa$M*>^ELAjB(Y"
    "KUM)RELAjB'YK$L&;v*8cAB$`B$C+.xA+)DA+2MA+2_A+2EA+2oA+2YA+2cA+2AD+3@AHA+*zA++aBDAPATCyAHAHA+3E"
    "G(cA+)DA+2MA+2_A+2EA+2oA+2YA+2cE}AHA+*zA++aBDAPATCyAHAHA+3E&g+1mABEBAB_$k'*Q$hAB$pB$C+7rDNC+5"
    "ZA+5QFNFLB+7yAPA+3GH'pDNC+4ZA+4QFNE+7kA+7^B+6yAPA+7C$_+5BaB$x$XAB,@*<[LBT$@LBMRu$iJ)cE)nA*DAD"
    "ALFDETDHDHBWCrE'KA'aADALFDETDHDHBWI't%F'NABO_ABrB$C*3VDqD]FLFqDaH%jDqD]FLFqDa$K%bHuJeN$WHuJeN"
    "$GAB%b$XABNZABMB$C+<AT(]L'YT']B+3sBBMB$Q+4tF$BZ~F$B2L$#{aB$MB$C<~B)MADAXB)eA$sA%bBsA(`BTA']C&"
    "xAPAHA&eE%pG%gB)MADAXB)eA$sA%bA$BAMA(`BTA']C&xAPAHA&eE%p$e%{aB&Ai&bB^F$CcDHDHFHCHCHLfDHDHFHCH"
    "CH3`6iABYD$C7QDHDHFHCHCHLfDHDHFHCHCH^D1n+2@DaBaBaFaJ$BH&UDaBaBaFaB(RD'pDabB1n%rDaBaBaFaB(PD'n"
    "DaH&UDaBaBaFaB(RD'pDaIN$Q+8lF_Z[F_$WP$C+1}A(ABPA(cC'pA(VB'xAHAXAHA'TC&jAPATA&wA&QATB&_A&IG_A("
    "ABPA(cC'pA(VB'xAHAXAHA'TC&jAPATA&wA&QATB&_A&I'o%cABNZABEB$W'EaBEB$C&laBIB$U+)^AD`AADnB$E-|A+4"
    "uA+)[B+[A+2kC+2AAJBTDcAPAHO&|A+3uA+)[B+[A+2kC+2AAJBTDcAPAHUB$C&CDiDmF)DF&vL&`DiDmF)DF&vYJ$F+/"
    "VALG$JB]F$NALO&KALG$JB]F$NALEB$J%^aBMD$GbDeL%TP%vDeL%TdB$D&dBPG$NALB]DmBaF$NH'bBPD'VC&GALB]Dm"
    "BaF$N$[N}$&qA[A_'<e)vBBBg}$@BDBAp$oEJCFXqBDWwGFBFCDE$JTUC]ABMFABCFABCNABA&DABE%~ABCFABJ%wABP$"
    "pFBABBBG$yABABAB|T%m=K/bUFaBaLaDaA~Aa'#U*OABGNABWoABGNABGNABGNABWoABHPGNABGNAB$X&F$Aa%CF1n$GF"
    "aR$cC%SBaCbFaR$cEB'#R&nABABABABABABABABABABABABABABABQBABABABABABABABABABABABABABABABrBABABAB"
    "ABABABABABABABABABABABABAFDaH$c{$xPaq$cC<N<Y*4SMB<YBbBBD$z(BQcCfCB<Y'~G:}$,s;yHPCFC'L$/W'wCs$"
    "/WBC.e$5d/VCq$5dECB$5dHE&T$7g'DABEs$6q$pu$sC'F$9k'@C&_$;o'LGg$;hSGNDHCB$;oEE&V$=s'LABCs$=sBE&"
    "m%$K'eCFCJ%$KACa%$KDC6D%-j5uW&*D&>d&(sBDBDBDBDDHj$TBDBFABCD$d)+i*&T)+BE%SBDBDBDBDBDBDBDBDBDBD"
    "BDCFBDBDGNCFCFCFCFc$FI%qE%SBDBDBDBDBDBDBDBDBDBDBDCFBDBDGNCFCFCFCFTwABABABKHUB*&~'bCFCFCFCF$V%"
    "mCFCFCFCFG%-%u$/(d%,>iBDJ_E&a$/+A'NABC4P$/3h4ZCs$/3hBC.H$/9f.wCT$/9fACF$/9fFE*s$/=m+HABL%<<G|"
    "%;;j%@R+Rf$I$jABRDi@$c+/q$V].h^A$hB]ADAaB}B[AaA$Q]&IADADADA&_I$KS%MADADD@'7J'NABF@$M,e$}B.{ID"
    "@*%T3gAB+P@.1Q%*(Lf&IG%w$K%ID(Hi%IR'Te%n%g&|E'Xu%d$o&e%tr%S%ID%w$L(OR%ZC$IPA|%TR%FQ$F$Q$rR$|H"
    "gp%YL$GW%ecxi'Xw)j$P%cc&Ok)}N_f&`$~}&P'n(}(F(p$|$}$EGO$l$nIEc&w-H$E@%ZGe$SBd&jC'q%ySx(r$m']&@"
    "z$WiA&zc%yX%A%K's_&j$N$}^%IJ%]&KZ$f$B$N%W$i'KJ'No%H%`(dF$opq%A$ef$`'Byk&G%y$ub%om$x$P&@$xv$@$"
    "vo'[d$Rx({nr]$Z$_$Wec$m&Eh&V(e)h@%T@&LQ&l&Fvrh$v&exsL$l&TD$FSY&}w)hg(uj(I$d)cO(YP'Z%wU_$DW*^$"
    "@%XT%L&N&fS&J%`&up%|Q'Y$s'B%I$]B$_$B)CKh$I$R$a(s})j$|'@R%O@&{l$^m'ti)gCp$c|atO%{&G$EL%rKh$u'N"
    "$c$Ih(p%B$LZ$w(u&Hb'n$@Xr{p$D$W%Up&{]$C$T%A%t(L$WB'g%hc&Is(u$W'Cj%mR&OMv$td_uw%B$E%O(L'uL)zU("
    "J$j&|$G'@jrO%hM](W$[P)m%K&z$yO$S']%W)Kiu$N%CL%q%j$XN$T&W(Gn)gL)AhlR^^$N(i$K$hm%h&yM%RRBW)x$oe"
    "(P%Z@$gi$ID$ziy$](Hi(M&N%x$}%TF%M'p$k&b$l$_'uD%By%W$Px$v$T$[$TS(j$As%af$L(FX$gC&[B&n$f(X&V&j$"
    "H%},vj%E%D^&pkPC&{NR^kU$tk$gT$rA&W|bV&}&VB$Hy)`(v$|&a'M%`&o(})p(zet$d$BX%TH&]p&Y&E$yO)E@B)e@+"
    "9I1q5`BbB%$`&M(eFo%I(CB$[$KE&VH%G[%DXFvGj%|jj&F&sB%I[BV%J$Y%G+T%L$FBD%K@%Hd&[c&ce%K$eB*gBZ$S@"
    "&_$P%GK%J%UBPB'VB&LB$`'A&f$qJB,J$xm'JA&tF&w%TB$FB&Nt`$^$F%VqD$HARFH%[gB@%X$g%U@%Z$DB%d'[&x'_$"
    "ZBwB'E%`G%c%P%`%V$b@'F^%`d$|$f'aDB|B'x%d/L%g$CB(o'jd'mw%h%hB%v%kPA$I%f@%k'DB(Z%j@%m&C%jJ%o$}B"
    "$~'Y@']'@%p$Q%s%YBvB&iBBB%p'd@'gQBYB$NDJA$`W&q%h|&F$s'nB$kJDAAGDFBGBA$rGBi$sABA$r%v$u$CBq%s'W"
    "%p@%s&AB$E'jXt%I(c%^%t@%wU%tyB'E%uu%r$M$z$J$}@%s*w%plc$d`@B&`%o%bB$k%n*I%A(r's&Y(d&J%ur%q$GBE"
    "(dK%s@%s'rBLDcFK(A@'yFFC%z@%yy%v@%}$SB(S%|vB@%},BBC)A$~&D%F%E@%H{%}$o'r`O%a(F&dB2v)Cp)F|'vm$u"
    "@&D$v(`@(c%IBe&E@&HLBq&G@&J%y(MMBmB*y(L-w(I)[(a$MBNU%$<RDFA$6jD%)U&O%*Y&X$2^B(#[B+P@*8P(-(D[N"
    "gXwJ*h%JNB%I]%sZtJZD$MX]JzN_A&{$D$@J${TeAQCqa$VR$~NwH$&Iv$1t)xEADD%Oo%Xj$PBMB$IB${B`BwDXA$iHG"
    "BPBCHPEVHE)FCBB)CMBHDIB$BDNBD$gu$bKBmBEB$RDBB[BVBKBABQBsBHBIBYBJBBB@B@B$MFUBLDFBUBsDPBaBwEDH$"
    "VBZB$EBPBbB@BUBRBHBOB$FD$MDdB%gGAD$wP$EEgBYBeFAA$}D$DMDREBOBTBHB$BB$yLTEpBLB$AD%gFwB@B%IDUBOB"
    "LBLDGB]D$@DNB`DtA%GFiFCAND$hBAB[DlBUBmB$IHCBCBTBuDeH@Br$CO$LIBpDtBJBcB%LBSFtD%EBDB@DBAmDTBVDK"
    "BCCmFTBDBZBKB$DB$VBdBiH$CASCXH[BgJ]A`E$@D$IHNFGC`B%wF^B$zD$iD$JDKL$_QHPWHDBFBsDKAhJ$xAfLtGtBI"
    "D%JDoD$dB$IB&DBtD$HDtD_DnB[BAB%WHYH$ZCNB$KD0u)`%.C(L(_%I%#0|'h3Z_pH&vQ3R$P(AH$.O$D*RN$DB.uV(Z"
    "J+C'V&`'ABD1zX){P@B2Ae4Zi&lL3zX.D$h'S%P%oL,HR+TH*uN$pD*PD(0P&K*%Q&~%4E&m+P@*8n-J$)})K$fX'_iLD"
    "@B$fL&hVLBrTMD$RB$OJ$NN&YPfH$|F$dLtHfF%@ZwF$cT&FssNDBJF$oZcF}L%MJIB.e$D$SF%LLHB}F$(C&Y$(DW/U&"
    "c%+B*hJMCDiBNCAFMB$wRwK$AB$[FDA%hH$ZF$WFCA[AQHnDFAqD%]D$YD%PDMB[BqDUB&lFQBZD%gFUBUBTB$GB$]DZD"
    "sD%eD&kLkJAB@BlB$CD&IH$@B$BB%NFzF$_B$WDJBEB%dH&_FCB'QFQFEAXD$fD$gD|B$EB'~L[D$hBKB$^FPD$DF$SB|"
    "D&ILCB%KHFALDTDBBJBiFACxFFFqHPK$LBPDMHBBPBKI$sB%_RBBdB$PD&sNLBKBBB`DbAzFmAZF$EBNCMF$^DaB$bDCB"
    "$wDGB]D)sL$OB%bB&QB$XDVB$]B$_B$GHOAfD&kD$gB$i%h&}%o$`BaBJD'fB$FF$^CAB'jD]B)BDmD'TF$cD&CJlH@B$"
    "<:a*U.v)H&aH&5M(Q%4R%RuRIB$.P'O*AN%QFqB.lX(RD,pH'vF&fB4D]$_D/hHWB%PB%sJAAgDZB/BR+YJ$wDlB.MN't"
    "B@B'LF&[H/_L-wN`B%VD$hD)iH$KB%ID+ORNB1d_'BZ%dD%ZA*OP%IF'jB/PK-ru,YL%}B0]N-[J>YP[B(KH6sP)IH2mJ"
    "&[B+@H%PD}@.%`L%`J'HJ`BKF$aJ.#|l%~D$ID%BB[B}B']F'wB&CB$mF(_L$@DEBGBJBGBfB%5%pv9gP:LNxD'QB%GB1"
    "KRB;s/a*>9fB$q)+~.5}B7a;I%(.qDF;@cc^BB;@aBB;EymF;@vABABABABABABBDABABABABBDBDABBDABBDABABABAB"
    "FF;ADJBIBDD;Y$I$+(JDDB;YA$+(JDP$#m$,`%2,CABABEBEBABIBDBF'H$.p'BABMDL'H$0i&{ABEBOFG$WFFD+P$4|,"
    "_ABB$)q%*p$(oBD%*pDFX%*pX$CUADD$m%)}^$R%eTD%*@&rJTEJEJEJx$qJTEJEJEJH'74_%/4Y'74gAB$d%}ABFR%/4"
    "b%|$_&@ABFB%/4b%~$_&BABBB%/4b&ABB%/4bBBB%/4bB@wAK0ND&8n@MF3IADBJACA$).S@1*TD/$K@&$sBFV$-H@%C@"
    "%C@%C@%C@)K@1V@$4V@%v@$R@7;K@2(X@%}@$X@$n@%w@$T@'Q@%@@'D@&}@$&$]@AA*'jAAl$-Y@%C@%C@%C@%C@%C@%"
    "C@%C@%C@%@@$r@(S@%yA$#Q@`@%b@-b@&j@$hA$HA%3[@5$y@&C@%R@$o@'~@&}@0<[@;w@y@z@$|A%O@$w@%y@$e@&{@"
    "%C@'D@%C@$y@$w@7|@AA:_@AA:`@AA:a@AA:b@AA:c@AA:d@AA:e@AA:f@AB:g@N@AA:hAAA:j@AA:k@AA:l@AA:n@AA:"
    "p@AA:q@AA$,#w@AB<~@-y@AB=@@-y@AB=A@-y@AB<J@v@AB<K@v@AB<L@v@AA=E@AA=F@AA=e@AA$$K@qA$9z@GA$9{@L"
    "A%%mADA%%}CKA%'qADA%(BCGA%*p@AC%*q@GCB@BA%*s@$HC/zADA&=C@LA'.D@BD/t@$9A@%--pAGDBA*%w@B$I/oCBD"
    "BCBJECJBCADCBA,H@D@D@FEB@Z@%SAE@B@%G@F@B@$E@B@BBAAA@C@A@A@A@%n@$iB%K@B@B@CBF@BA$Y@:tA[@A@%R@&"
    "L@$*t@&c@$i@vEB@%s@(sDBCM@&Z@G@D@n@A@/@@CC7%`B)R@/+cF2n@&i@$$g@m@%p@$$*{GGA&/DFBD:H@R@%;l@&-p"
    "@BA*%{ABA%/4p@BC:]@%9V@&0C@B$q/XTiGA@CBCBD@C@GL'[D'RCABBEFAAAB@T@$MG|ABDAA$zFBCA@BABA$E@AAAAC"
    "@B@ABA@A@A@AA%eFA@cCAHABAD%kMBAAAABFBAABD$S@AA<`ABA2tB5b@(g@&c@$`GtDFA%s@AF(gBGAD@S@CA&LAAFAA"
    "DeE@B@.hABCCAD@E@A@F@$8aB&u`48Q@DIaA$RA*}Q*L@AACAEAA@/+NFGA8qD>J@i@%q@<LB,vFCD/=OF2%ZDaC%XB%#"
    "lFAPBFAAAD$,dEBD/n@D@~@)4E@AD0w@B@B@&<t@AC0xAAA&<E@FA0`@";

/* Entries of the table: the first and second character that one decomposes into (rank and id, which
 * is 0 if there is no second), the one that two compose to (id), and the combining class (rank). */
enum { DECOMPOSES = 1, COMPOSES, COMBINES };

/* A character of text that is taken apart: its class, its place and itself, so that they sort. */
enum { CODE_BITS = 21, PLACE_BITS = 32 };
#define CODE(piece) ((uint32_t)((piece) & ((1u << CODE_BITS) - 1)))
#define CLASS(piece) ((piece) >> (CODE_BITS + PLACE_BITS))

static uint64_t canonical_key(int kind, uint32_t first, uint32_t second)
{
    return ((uint64_t)kind << CODE_BITS | first) << CODE_BITS | second;
}

/* Adds an entry; returns 1 when out of memory. */
static int add_canonical(Table *table, uint64_t key, uint32_t rank, uint32_t id)
{
    Slot *slot = add_slot(table, key);
    if (slot) *slot = (Slot){ key, rank, (int)id };
    return !slot;
}

/* Reads a difference, which may be negative. */
static uint32_t read_difference(const char **text)
{
    uint32_t n = read_number(text);
    return n & 1 ? -(n / 2 + 1) : n / 2;
}

/* Unpacks canonical_forms; -1 when out of memory. */
static int unpack_canonical(Table *table)
{
    const char *s = canonical_forms;
    uint32_t first = 0, second = 0, code = 0, rank = 0;
    int failed = 0;
    for (uint32_t n; (n = read_number(&s)) > 0;) {
        second += read_difference(&s);
        first = 0;
        for (uint32_t i = n / 2; i > 0; i--) {
            first += read_number(&s);
            code += read_difference(&s);
            failed |= add_canonical(table, canonical_key(DECOMPOSES, 0, code), first, second);
            if (n % 2 == 0) continue;
            failed |= add_canonical(table, canonical_key(COMPOSES, first, second), 0, code);
        }
    }
    for (uint32_t classes = read_number(&s); classes > 0; classes--) {
        rank += read_number(&s);
        code = 0;
        for (uint32_t runs = read_number(&s); runs > 0; runs--) {
            code += read_number(&s);
            for (uint32_t end = code + read_number(&s); code <= end; code++) {
                failed |= add_canonical(table, canonical_key(COMBINES, 0, code), rank, 0);
            }
        }
    }
    return -failed;
}

/* Appends what a character decomposes into; returns the new number of pieces. */
static size_t take_apart(const Table *table, uint32_t code, uint64_t *pieces, size_t n)
{
    const Slot *parts = look_up(table, canonical_key(DECOMPOSES, 0, code));
    if (parts) {
        n = take_apart(table, parts->rank, pieces, n);
        return parts->id ? take_apart(table, (uint32_t)parts->id, pieces, n) : n;
    }
    const Slot *mark = look_up(table, canonical_key(COMBINES, 0, code));
    pieces[n] = ((uint64_t)(mark ? mark->rank : 0) << PLACE_BITS | n) << CODE_BITS | code;
    return n + 1;
}

/* What two characters compose to, 0: nothing. Hangul syllables are in order of their parts. */
static uint32_t compose(const Table *table, uint32_t a, uint32_t b)
{
    uint32_t syllable = a - 0xAC00;
    if (a - 0x1100 < 19 && b - 0x1161 < 21) return 0xAC00 + ((a - 0x1100) * 21 + b - 0x1161) * 28;
    if (syllable < 11172 && syllable % 28 == 0 && b - 0x11A8 < 27) return a + b - 0x11A7;
    const Slot *slot = look_up(table, canonical_key(COMPOSES, a, b));
    return slot ? (uint32_t)slot->id : 0;
}

static int compare_pieces(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Sorts marks by class and joins what can be joined; returns how many pieces are left. */
static size_t put_together(const Table *table, uint64_t *pieces, size_t n)
{
    size_t kept = 0, base = n; /* the last character that is no mark */
    for (size_t i = 0, end = 0; i < n; i++) {
        if (i == end) {
            do end++;
            while (end < n && CLASS(pieces[i]) && CLASS(pieces[end]));
            if (end - i > 1) qsort(pieces + i, end - i, sizeof *pieces, compare_pieces);
        }
        int open = base < kept && (base + 1 == kept || CLASS(pieces[kept - 1]) < CLASS(pieces[i]));
        uint32_t joined = open ? compose(table, CODE(pieces[base]), CODE(pieces[i])) : 0;
        if (!joined && CLASS(pieces[i]) == 0) base = kept;
        pieces[joined ? base : kept++] = joined ? joined : pieces[i];
    }
    return kept;
}

/* Text (len) in form C, which the caller frees, NULL if there is no memory; len becomes its length.
 * Bytes that are no characters stay as they are. */
static char *normalize(const Table *table, const char *text, size_t *len)
{
    size_t n = 0, length = 0;
    uint32_t code;
    uint64_t *pieces = malloc((*len / 2 * 3 + 2) * sizeof *pieces); /* 2 bytes become 3 at most */
    for (size_t at = 0; pieces && at < *len;) {
        at += read_char(text + at, *len - at, &code);
        n = take_apart(table, code, pieces, n);
    }
    n = pieces ? put_together(table, pieces, n) : 0;
    char *normal = pieces ? malloc(4 * n + 1) : NULL;
    for (size_t i = 0; normal && i < n; i++) {
        length += write_char(normal + length, CODE(pieces[i]));
    }
    free(pieces);
    if (normal) *len = length;
    return normal;
}

/* ==== Merging ====================================================================================
 * The symbols of a word are a linked list, and all neighbours that make a piece are candidates in
 * a heap: best first, then leftmost. Merging the best one makes at most two new candidates; those
 * that it makes impossible stay until their turn comes, and then don't have the length of their
 * symbols any more. So n symbols take about n log n steps.
 */

typedef struct {
    uint32_t at, len;   /* bytes of the word; len 0: merged into the symbol before */
    int id;             /* token, or NO_TOKEN */
    int previous, next; /* symbols, -1: none */
} Symbol;

typedef struct {
    uint64_t order; /* rank << 32 | left symbol; the lowest is the best */
    uint32_t len;   /* of the two symbols */
    int id;         /* the token they make */
} Candidate;

/* The state of a call of encode. */
typedef struct {
    const tokenizer *t;
    int *tokens;
    size_t max, count;
    char *error;
    size_t error_size;
    int failed;
    int prefix;       /* a space goes in front of the next word */
    size_t room;      /* symbols that the arrays have room for */
    Symbol *symbols;  /* (room) of one word */
    Candidate *heap;  /* (2 * room): every merge takes one away and adds at most two */
    char *buffer;     /* (3 * room) the word in the spelling of the vocabulary */
    const char *word; /* the bytes of the symbols */
    size_t n_symbols, n_heap;
    Search search;
} Work;

/* Makes room for a word of n symbols; -1 when out of memory. */
static int begin_word(Work *w, size_t n)
{
    w->n_symbols = w->n_heap = 0;
    if (n <= w->room) return 0;
    free(w->symbols);
    free(w->heap);
    free(w->buffer);
    w->room = n + 64;
    w->symbols = malloc(w->room * sizeof *w->symbols);
    w->heap = malloc(w->room * 2 * sizeof *w->heap);
    w->buffer = malloc(w->room * 3);
    if (w->symbols && w->heap && w->buffer) return 0;
    set_error(w->error, w->error_size, "out of memory for a word of %zu bytes", n);
    w->room = 0;
    w->failed = 1;
    return -1;
}

/* Puts out a token. */
static void emit(Work *w, int id)
{
    if (w->count < w->max) w->tokens[w->count] = id;
    w->count++;
}

/* Puts out a symbol that is no token: as its bytes, or as the unknown token. */
static void emit_bytes(Work *w, const char *text, size_t len)
{
    const int *byte_tokens = w->t->byte_tokens, unknown = w->t->vocab.unknown;
    size_t spelt = 0;
    while (spelt < len && byte_tokens[(unsigned char)text[spelt]] >= 0) {
        spelt++;
    }
    for (size_t i = 0; i < len && spelt == len; i++) {
        emit(w, byte_tokens[(unsigned char)text[i]]);
    }
    if (spelt < len && unknown >= 0) {
        emit(w, unknown);
    } else if (spelt < len) {
        set_error(w->error, w->error_size, "the vocabulary has no token for the byte 0x%02X",
                  (unsigned char)text[spelt]);
        w->failed = 1;
    }
}

/* Appends a symbol to the word. */
static void add_symbol(Work *w, size_t at, size_t len, int id)
{
    int i = (int)w->n_symbols++;
    w->symbols[i] = (Symbol){ (uint32_t)at, (uint32_t)len, id, i - 1, -1 };
    if (i > 0) w->symbols[i - 1].next = i;
}

/* Adds a candidate to the heap. */
static void push(Work *w, Candidate candidate)
{
    Candidate *heap = w->heap;
    size_t i = w->n_heap++;
    for (; i > 0 && heap[(i - 1) / 2].order > candidate.order; i = (i - 1) / 2) {
        heap[i] = heap[(i - 1) / 2];
    }
    heap[i] = candidate;
}

/* Takes the best candidate from the heap, which isn't empty. */
static Candidate pop(Work *w)
{
    Candidate *heap = w->heap, best = heap[0], last = heap[--w->n_heap];
    size_t i = 0, n = w->n_heap;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && heap[child + 1].order < heap[child].order;
        if (heap[child].order >= last.order) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return best;
}

/* The rank of a score: the higher the score the lower the rank, equal for equal ones, NaN last. */
static uint32_t score_rank(float score)
{
    uint32_t bits;
    if (score != score) return UINT32_MAX;
    score += 0.0f; /* turns -0 into 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFF; /* bits rise with the magnitude of a float */
}

/* Makes a candidate of a symbol and the one behind it if they make a piece; left may be -1. */
static void propose(Work *w, int left)
{
    const tokenizer *t = w->t;
    if (left < 0 || w->symbols[left].next < 0) return;
    const Symbol *a = &w->symbols[left], *b = &w->symbols[a->next];
    Candidate candidate = { 0, a->len + b->len, NO_TOKEN };
    uint32_t rank = 0;
    if (!t->kind->merges) {
        candidate.id = find_piece(t, w->word + a->at, candidate.len);
        if (candidate.id >= 0 && t->vocab.scores) rank = score_rank(t->vocab.scores[candidate.id]);
    } else if (a->id >= 0 && b->id >= 0) {
        const Slot *merge = look_up(&t->merges, ((uint64_t)a->id << 32 | (uint32_t)b->id) + 1);
        candidate.id = merge ? merge->id : NO_TOKEN;
        rank = merge ? merge->rank : 0;
    }
    candidate.order = (uint64_t)rank << 32 | (uint32_t)left;
    if (candidate.id >= 0) push(w, candidate);
}

/* Merges the symbols of the word and puts out what they become. */
static void merge_word(Work *w)
{
    Symbol *symbols = w->symbols;
    for (size_t i = 0; i < w->n_symbols; i++) {
        propose(w, (int)i);
    }
    while (w->n_heap > 0) {
        Candidate best = pop(w);
        int left = (int)(uint32_t)best.order;
        Symbol *a = &symbols[left];
        if (a->len == 0 || a->next < 0 || a->len + symbols[a->next].len != best.len) continue;
        Symbol *b = &symbols[a->next];
        a->len = best.len;
        a->id = best.id;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0) symbols[a->next].previous = left;
        propose(w, a->previous);
        propose(w, left);
    }
    for (int i = w->n_symbols ? 0 : -1; i >= 0 && !w->failed; i = symbols[i].next) {
        if (symbols[i].id >= 0) {
            emit(w, symbols[i].id);
        } else {
            emit_bytes(w, w->word + symbols[i].at, symbols[i].len);
        }
    }
}

/* ==== Encode =====================================================================================
 * Special tokens are cut out of the text first; what lies between them is split and merged.
 */

/* Puts out a word that is a token as a whole; returns whether it is one. */
static int emit_whole(Work *w, const char *spelling, size_t len)
{
    int id = find_piece(w->t, spelling, len);
    if (id >= 0) emit(w, id);
    return id >= 0;
}

/* Encodes a word of byte-level BPE. As in Hugging Face tokenizers, bytes without a token are left
 * out, so that their neighbours may merge: some models have none for a few control characters. */
static void encode_word(Work *w, const char *text, size_t len)
{
    const tokenizer *t = w->t;
    if (begin_word(w, len) < 0) return;
    if (t->rule->flags & IGNORE_MERGES && len <= t->longest &&
        emit_whole(w, w->buffer, spell(w->buffer, text, len))) {
        return;
    }
    w->word = text;
    for (size_t i = 0; i < len; i++) {
        int id = t->byte_tokens[(unsigned char)text[i]];
        if (id >= 0) add_symbol(w, i, 1, id);
    }
    merge_word(w);
}

/* Encodes a word of characters: spaces become U+2581, with one more in front if w->prefix. */
static void encode_pieces(Work *w, const char *text, size_t len)
{
    if (begin_word(w, len + 1) < 0) return;
    char *word = w->buffer;
    size_t n = 0;
    for (size_t i = 0; i < len; i += !w->prefix, w->prefix = 0) {
        if (w->prefix || text[i] == ' ') {
            memcpy(word + n, SPACE_MARK, 3);
            n += 3;
        } else {
            word[n++] = text[i];
        }
    }
    w->word = word;
    if (w->t->rule->flags & WHOLE_NEWLINES && *word == '\n' && emit_whole(w, word, n)) return;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t code;
        length = read_char(word + at, n - at, &code);
        add_symbol(w, at, length, find_piece(w->t, word + at, length));
    }
    merge_word(w);
}

/* Splits text by the rule's patterns from number `pattern` on, and encodes the words. */
static void encode_words(Work *w, int pattern, const char *text, size_t len)
{
    if (pattern == w->t->n_patterns) {
        w->t->kind->characters ? encode_pieces(w, text, len) : encode_word(w, text, len);
        return;
    }
    for (size_t at = 0, from, to; at < len && !w->failed; at = to) {
        int found = search(&w->search, &w->t->patterns[pattern], text, len, at, &from, &to);
        if (!found) from = to = len;
        if (from > at) encode_words(w, pattern + 1, text + at, from - at);
        if (found) encode_words(w, pattern + 1, text + from, to - from);
    }
}

/* Encodes text without special tokens. */
static void encode_plain(Work *w, const char *text, size_t len)
{
    char *normal = NULL;
    size_t settled = 0; /* characters below U+0300 are normal, whatever precedes them */
    while (settled < len && (unsigned char)text[settled] < 0xCC) settled++;
    if (settled < len && w->t->rule->flags & NFC) {
        text = normal = normalize(&w->t->canonical, text, &len);
        if (!normal) set_error(w->error, w->error_size, "out of memory for %zu bytes", len);
        w->failed |= !normal;
    }
    if (!w->failed) encode_words(w, 0, text, len);
    free(normal);
}

/* The special token that text begins with: a mark if all of its bytes may be part of one. */
static int special_at(const Work *w, const char *text, const unsigned char *marks, size_t len,
                      int flags, size_t *length)
{
    size_t marked = 0, longer = 0;
    if (marks) flags &= ~TOKENIZER_SPECIAL;
    while (marks && marked < len && marked < MAX_SPECIAL && marks[marked]) marked++;
    int id = find_special(w->t, text, len, flags, length), mark = NO_TOKEN;
    if (marked) mark = find_special(w->t, text, marked, flags | TOKENIZER_SPECIAL, &longer);
    if (mark < 0 || (id >= 0 && *length > longer)) return id;
    *length = longer;
    return mark;
}

/* Encodes text. The space prefix of SentencePiece goes in front of every piece of text that lies
 * behind a special token, as in llama.cpp and in the tokenizer.json of the models that have it. A
 * few have a tokenizer that puts it at the beginning of the text alone (the prepend_scheme
 * "first"), or that looks for some of its special tokens in text that has its prefix already
 * ("normalized"): GGUF says neither, so they are taken for the others. */
static void encode_text(Work *w, const char *text, const unsigned char *marks, size_t len,
                        int flags)
{
    int prefix = w->t->vocab.add_space_prefix;
    w->prefix = prefix && (flags & TOKENIZER_BEGIN || w->count > 0);
    for (size_t start = 0, at = 0; start < len && !w->failed; start = at) {
        size_t length = 0;
        int id = NO_TOKEN;
        for (; at < len; at++) {
            id = special_at(w, text + at, marks ? marks + at : NULL, len - at, flags, &length);
            if (id >= 0) break;
        }
        if (at > start) encode_plain(w, text + start, at - start);
        if (id >= 0) emit(w, id);
        w->prefix = prefix;
        at += length;
        for (Char c; id >= w->t->swallowing && at < len;) {
            size_t next = next_char(w->t->categories, 0, text, at, len, &c);
            if (!(c.mask & WHITE)) break;
            at = next;
        }
    }
}

int tokenizer_encode_marked(const tokenizer *t, const char *text, const unsigned char *marks,
                            size_t len, int flags, int *tokens, int max, char *error, size_t size)
{
    Work *w = len > MAX_TEXT ? NULL : calloc(1, sizeof *w);
    if (!w) {
        if (len > MAX_TEXT)
            set_error(error, size, "the text has %zu bytes, more than 1 GB", len);
        else
            set_error(error, size, "out of memory for a text of %zu bytes", len);
        return -1;
    }
    *w = (Work){ .t = t, .tokens = tokens, .max = max > 0 ? (size_t)max : 0 };
    w->error = error;
    w->error_size = size;
    w->search.categories = t->categories;
    w->search.now = w->search.ways[0];
    w->search.next = w->search.ways[1];
    if (flags & TOKENIZER_BOS && t->vocab.bos >= 0) emit(w, t->vocab.bos);
    if (len) encode_text(w, text, marks, len, flags);
    if (w->count > INT_MAX) set_error(error, size, "the text has %zu tokens, too many", w->count);
    int result = w->failed || w->count > INT_MAX ? -1 : (int)w->count;
    free(w->symbols);
    free(w->heap);
    free(w->buffer);
    free(w);
    return result;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t len, int flags, int *tokens,
                     int max, char *error, size_t size)
{
    return tokenizer_encode_marked(t, text, NULL, len, flags, tokens, max, error, size);
}

/* ==== Decode ================================================================================== */

size_t tokenizer_decode(const tokenizer *t, const int *tokens, int n, int flags, char *text,
                        size_t size)
{
    size_t total = 0;
    int prefix = t->kind->characters && flags & TOKENIZER_BEGIN && t->vocab.add_space_prefix;
    for (int i = 0, begins = prefix; i < n; i++) {
        int id = tokens[i];
        if (id < 0 || id >= t->vocab.n_tokens) continue;
        /* an unknown token mostly stands for a character, which the same text goes on behind */
        int special = tokenizer_is_special(t, id), unknown = type_of(t, id) == TOKEN_UNKNOWN;
        const char *raw = t->raw + t->raw_at[id];
        size_t len = t->raw_at[id + 1] - t->raw_at[id];
        if (begins && !special && len > 0) {
            int space = raw[0] == ' ';
            raw += space;
            len -= (size_t)space;
            begins = 0;
        }
        if (special && !unknown) begins = prefix;
        if (is_control(t, id) && !(flags & TOKENIZER_SPECIAL)) continue;
        if (total < size) memcpy(text + total, raw, len < size - total ? len : size - total);
        total += len;
    }
    if (size > 0) text[total < size ? total : size - 1] = 0;
    return total;
}

/* ==== Making a tokenizer ====================================================================== */

/* Whether some piece of characters has a space behind the end of a word. */
static int has_joined_words(const tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        tokenizer_text token = t->vocab.tokens[id];
        for (size_t i = 1; i + 3 <= token.len; i++) {
            int behind_mark = i >= 3 && memcmp(token.data + i - 3, SPACE_MARK, 3) == 0;
            if (memcmp(token.data + i, SPACE_MARK, 3) == 0 && !behind_mark) return 1;
        }
    }
    return 0;
}

/* BPE: adds the merge "left right". 1: done, 0: it doesn't fit the tokens, -1: out of memory. */
static int add_merge(tokenizer *t, tokenizer_text merge, int rank, char *joined)
{
    const char *space = merge.len > 2 ? memchr(merge.data + 1, ' ', merge.len - 2) : NULL;
    if (!space || merge.len - 1 > t->longest) return 0;
    size_t left_len = (size_t)(space - merge.data), right_len = merge.len - left_len - 1;
    memcpy(joined, merge.data, left_len);
    memcpy(joined + left_len, space + 1, right_len);
    int left = find_piece(t, joined, left_len), right = find_piece(t, space + 1, right_len);
    int id = tokenizer_find(t, joined, left_len + right_len);
    if (left < 0 || right < 0 || id < 0) return 0;
    /* what a merge makes was seen in texts, like the "<s>" of Qwen2's vocabulary, and is no mark */
    if (t->roles[id] == MARK && type_of(t, id) == TOKEN_NORMAL) t->roles[id] = PIECE;
    if (t->roles[id] != PIECE && t->roles[id] != CUT_OUT) return 0;
    Slot *slot = add_slot(&t->merges, ((uint64_t)left << 32 | (uint32_t)right) + 1);
    if (!slot) return -1;
    if (slot->id == NO_TOKEN) *slot = (Slot){ slot->key, (uint32_t)rank, id };
    return 1;
}

/* BPE: fills the table of merges; writes how many don't fit the tokens. */
static int index_merges(tokenizer *t, int *unfit)
{
    char *joined = malloc(t->longest + 1);
    int added = joined ? 0 : -1;
    for (int i = 0; i < t->vocab.n_merges && added >= 0; i++) {
        added = add_merge(t, t->vocab.merges[i], i, joined);
        *unfit += added == 0;
    }
    free(joined);
    return added < 0 ? -1 : 0;
}

/* Compiles the patterns of the rule. 0, -1: no memory, -2: a pattern is not understood. */
static int compile_rule(tokenizer *t)
{
    while (t->n_patterns < MAX_PATTERNS && t->rule->patterns[t->n_patterns]) {
        t->n_patterns++;
    }
    t->patterns = malloc((size_t)(t->n_patterns + 1) * sizeof *t->patterns);
    t->categories = calloc(CODE_POINTS, 1);
    if (!t->patterns || !t->categories) return -1;
    unpack_categories(t->categories);
    for (int i = 0; i < t->n_patterns; i++) {
        if (compile_pattern(&t->patterns[i], t->rule->patterns[i]) < 0) return -2;
    }
    return t->rule->flags & NFC ? unpack_canonical(&t->canonical) : 0;
}

/* Chooses the rule, with a warning if it isn't the one that the vocabulary names. */
static void choose_rule(tokenizer *t)
{
    const char *name = t->vocab.pre ? t->vocab.pre : "";
    t->rule = !t->kind->words      ? find_rule(name)
              : has_joined_words(t) ? t->kind->joined
                                    : t->kind->words;
    if (t->rule) return;
    t->rule = &rules[0];
    snprintf(t->warning, sizeof t->warning, "%s%.80s%s, so words are split as for GPT-2",
             *name ? "the word-splitting rule \"" : "no word-splitting rule is named", name,
             *name ? "\" is unknown" : "");
}

/* The first of the special tokens that take the white space behind them. GGUF has no key for them;
 * Phi-3 has such ones, and is known by their names. */
static int find_swallowing(const tokenizer *t)
{
    int end = tokenizer_find(t, "<|endoftext|>", 13);
    int mark = tokenizer_find(t, "<|placeholder1|>", 16);
    return t->vocab.kind == TOKENIZER_SPM && end >= 0 && mark == end + 2 ? end + 1 : INT_MAX;
}

/* Makes all tables. Returns like compile_rule. */
static int make_tables(tokenizer *t)
{
    int unfit = 0;
    if (index_spellings(t) < 0 || unpack_tokens(t) < 0) return -1;
    choose_rule(t);
    t->swallowing = find_swallowing(t);
    int result = compile_rule(t), merges = t->kind->merges;
    if (result == 0 && merges) result = index_merges(t, &unfit);
    if (result == 0) result = index_special(t); /* merges tell what is none */
    size_t n = strlen(t->warning);
    if (merges && (unfit > 0 || t->vocab.n_merges == 0)) {
        snprintf(t->warning + n, sizeof t->warning - n, "%s%d of %d merges fit the tokens",
                 n ? "; " : "", t->vocab.n_merges - unfit, t->vocab.n_merges);
    }
    return result;
}

tokenizer *tokenizer_new(const tokenizer_vocab *vocab, char *error, size_t size)
{
    if (vocab->n_tokens <= 0 || !vocab->tokens) {
        set_error(error, size, "the vocabulary has no tokens");
        return NULL;
    }
    tokenizer *t = calloc(1, sizeof *t);
    int result = -1;
    if (t) {
        t->vocab = *vocab;
        t->kind = &vocab_kinds[vocab->kind];
        if (vocab->bos >= vocab->n_tokens) t->vocab.bos = -1;
        if (vocab->unknown >= vocab->n_tokens) t->vocab.unknown = -1;
        if (vocab->n_merges < 0 || !vocab->merges) t->vocab.n_merges = 0;
        result = make_tables(t);
    }
    if (result == 0) return t;
    if (result == -1) {
        set_error(error, size, "out of memory for a vocabulary of %d tokens", vocab->n_tokens);
    } else {
        set_error(error, size, "a pattern of the rule %s can't be compiled", t->rule->names);
    }
    tokenizer_free(t);
    return NULL;
}

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    free(t->spellings.slots);
    free(t->raw);
    free(t->raw_at);
    free(t->roles);
    free(t->special.slots);
    free(t->merges.slots);
    free(t->patterns);
    free(t->categories);
    free(t->canonical.slots);
    free(t);
}

const char *tokenizer_warning(const tokenizer *t)
{
    return t->warning[0] ? t->warning : NULL;
}

/* ==== Templates: values ==========================================================================
 * A chat template is a program in Jinja that a model file carries: it writes a conversation as the
 * model was trained to read it. What follows is a small Jinja that does what transformers' does
 * (trim_blocks, lstrip_blocks, loop controls, lists and mappings that don't change). The parser
 * makes a tree of nodes, each with the function that runs it. A template is a stranger's program,
 * so steps, memory and depth are bounded; failures leave by longjmp, and memory goes all at once.
 * A string is an array of characters of which each knows whether it is the template's or
 * somebody's, through all that is done with it: only the template's can become marks.
 */

enum {
    MAX_TEMPLATE = 1 << 20, /* bytes */
    MAX_RUN_STEPS =
        3000000, /* of nodes, or of some characters each; and 2 for each byte rendered */
    MAX_RUN_MEMORY = 40 << 20, /* bytes; and 24 for each byte rendered */
    MAX_DEPTH = 400,           /* of nodes in one another */
    MAX_RANGE = 100000,        /* as in Jinja's sandbox */
    MAX_PARAMETERS = 4         /* of a built-in */
};

#define TEMPLATES 0x80000000u /* set in a character of the template's own */

typedef uint32_t Cell; /* a character: its code point, or INVALID and a byte that is none */
typedef struct Jinja Jinja;
typedef struct Node Node;
typedef struct Scope Scope;
typedef struct Value Value;
typedef struct Builtin Builtin;

/* Tuples are lists. */
/* clang-format off */
typedef enum {
    A_UNDEFINED, A_NONE, A_BOOL, A_INTEGER, A_REAL, A_STRING, A_LIST, A_MAPPING, A_GENERATOR,
    A_NAMESPACE, A_LOOP, A_MACRO, A_FUNCTION
} Kind;

static const char *const kind_names[] = {
    "undefined", "none", "a boolean", "an integer", "a number", "a string", "a list", "a mapping",
    "a generator", "a namespace", "a loop", "a macro", "a function"
};
/* clang-format on */

struct Value {
    Kind kind;
    int escapes; /* a string that HTML-escapes what is added to it: see escaped */
    size_t n; /* characters of a string, of an undefined one's name, of an integer that is too long
                    (a REAL); items; pairs of a mapping */
    union {
        int64_t integer; /* of A_BOOL too */
        double real;
        const Cell *text;
        const Value *items; /* of a mapping: key, value, key, value, ... */
        Scope *scope;       /* the members of a namespace */
        struct Loop *loop;
        const struct Macro *macro;
        const struct Bound *bound;
    };
};

typedef struct Variable {
    Value name, value;
    struct Variable *next;
} Variable;

struct Scope {
    const Scope *parent;
    Variable *first;
};

typedef struct Loop {
    const Node *node;
    Scope *scope; /* in which the loop stands */
    const Value *items;
    size_t i, n, depth;
} Loop;

typedef struct Macro {
    const Node *node;
    const Scope *scope; /* in which it was made */
} Macro;

typedef struct Bound { /* a function or a method, and what it is of */
    const Builtin *row;
    Value self;
} Bound;

typedef struct {
    const Value *at, *names, *named; /* by place; keywords and their values */
    size_t n, n_named;
    int how; /* the row's */
} Arguments;

/* A filter, test, method or function. Where it names its parameters (with spaces between them), it
 * finds arguments at their places, undefined where not given; else as they were written. */
struct Builtin {
    const char *name, *parameters;
    Value (*run)(Jinja *j, Value self, const Arguments *a);
    int how; /* tells rows of one function apart */
};

typedef struct Chunk {
    struct Chunk *next;
    size_t used, size;
    max_align_t data[];
} Chunk;

/* A string and a list that grow. */
typedef struct {
    Cell *at;
    size_t n, room;
} Builder;

typedef struct {
    Value *at;
    size_t n, room;
} Values;

typedef enum { NO_WORD, WORD, LITERAL, SIGN, TAG_END } Word;

struct Jinja {
    Chunk *chunks;
    size_t memory, most_memory, steps, most_steps;
    int depth;
    jmp_buf failed;
    char *error;
    size_t error_size;
    const char *what;   /* is read or run, for messages */
    const Cell *source; /* of it */
    size_t n, where;    /* its length; where the node that runs stands, or what is parsed */

    size_t at; /* the parser: behind the word that it looks at */
    Word word;
    Value text;         /* the word, or the value of a literal */
    const char *closer; /* of the tag that it is in, "" in JSON */
    int brackets;       /* that are open in it */
    Cell whose;         /* TEMPLATES, or 0: what literals count as */

    Scope *scope; /* the run */
    Builder *out;
    int leaving; /* BREAK or CONTINUE, on the way to the loop */
    int64_t now; /* for strftime_now */
};

struct Node {
    Value (*run)(Jinja *j, const Node *n);
    size_t where;
    Value value; /* a constant, or a name */
    const Builtin *row;
    Node *a, *b, *c, *d, *e, *next;
};

struct tokenizer_template {
    Jinja parser; /* whose memory has the tree */
    Node *body;
};

static const Value undefined = { .kind = A_UNDEFINED }, none = { .kind = A_NONE };

static Cell code(Cell c)
{
    return c & ~TEMPLATES;
}

__attribute__((format(printf, 2, 3))) static _Noreturn void stop(Jinja *j, const char *format, ...)
{
    char what[512];
    va_list arguments;
    int line = 1;
    for (size_t i = 0; i < j->where && i < j->n; i++) line += code(j->source[i]) == '\n';
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    set_error(j->error, j->error_size, "%s, line %d: %s", j->what, line, what);
    longjmp(j->failed, 1);
}

static void count_steps(Jinja *j, size_t n)
{
    j->steps += n;
    if (j->steps > j->most_steps) stop(j, "more than %zu steps", j->most_steps);
}

/* Goes one level deeper; the caller goes back with j->depth--. */
static void enter(Jinja *j)
{
    count_steps(j, 1);
    if (++j->depth > MAX_DEPTH) stop(j, "more than %d levels in one another", MAX_DEPTH);
}

/* n zeroed things of a size, until the template or the rendering goes. */
static void *grab(Jinja *j, size_t n, size_t size)
{
    Chunk *c = j->chunks;
    size_t bytes = n < MAX_TEXT / size ? (n * size + 15) / 16 * 16 : MAX_TEXT;
    count_steps(j, bytes / 64);
    if (!c || c->size - c->used < bytes) {
        size_t room = bytes > 1 << 16 ? bytes : 1 << 16;
        j->memory += room;
        if (j->memory > j->most_memory) stop(j, "more than %zu MB", j->most_memory >> 20);
        c = calloc(1, sizeof *c + room);
        if (!c) stop(j, "out of memory for %zu bytes", room);
        *c = (Chunk){ .next = j->chunks, .size = room };
        j->chunks = c;
    }
    c->used += bytes;
    return (char *)c->data + c->used - bytes;
}

static void free_chunks(Jinja *j)
{
    for (Chunk *next; j->chunks; j->chunks = next) {
        next = j->chunks->next;
        free(j->chunks);
    }
}

static Value boolean(int truth)
{
    return (Value){ .kind = A_BOOL, .integer = !!truth };
}

static Value integer(int64_t n)
{
    return (Value){ .kind = A_INTEGER, .integer = n };
}

static Value real(double x)
{
    return (Value){ .kind = A_REAL, .real = x };
}

static Value string(const Cell *text, size_t n)
{
    return (Value){ .kind = A_STRING, .n = n, .text = text };
}

static Value slice(Value v, size_t from, size_t to)
{
    return string(v.text + from, to - from);
}

static Value list(Values v)
{
    return (Value){ .kind = A_LIST, .n = v.n, .items = v.at };
}

/* What Python makes one by one: it can be run through, but not much else. */
static Value generator(Values v)
{
    return (Value){ .kind = A_GENERATOR, .n = v.n, .items = v.at };
}

static Value mapping(Values v)
{
    return (Value){ .kind = A_MAPPING, .n = v.n / 2, .items = v.at };
}

/* The characters of bytes, with these bits set. */
static Value read_text(Jinja *j, const char *bytes, size_t len, Cell whose)
{
    Cell *text = grab(j, len, sizeof *text);
    size_t n = 0;
    for (size_t at = 0; at < len; text[n++] |= whose)
        at += read_char(bytes + at, len - at, &text[n]);
    return string(text, n);
}

static Value words(Jinja *j, const char *text)
{
    return read_text(j, text, strlen(text), TEMPLATES);
}

static int same(const Cell *a, const Cell *b, size_t n)
{
    while (n > 0 && code(a[n - 1]) == code(b[n - 1])) n--;
    return n == 0;
}

static int is_text(Value v, const char *word)
{
    size_t i = 0;
    while (i < v.n && word[i] && code(v.text[i]) == (unsigned char)word[i]) i++;
    return i == v.n && !word[i];
}

/* The UTF-8 of a string, with a zero behind it, until the rendering goes. */
static char *bytes_of(Jinja *j, Value v)
{
    char *bytes = grab(j, 4 * v.n + 1, 1);
    size_t len = 0;
    for (size_t i = 0; i < v.n; i++) len += write_char(bytes + len, code(v.text[i]));
    return bytes;
}

/* What a value is, for messages. */
static const char *described(Jinja *j, Value v)
{
    if (v.kind != A_UNDEFINED || v.n == 0 || v.n > 80) return kind_names[v.kind];
    char *text = grab(j, 4 * v.n + 16, 1);
    sprintf(text, "%s (undefined)", bytes_of(j, v));
    return text;
}

static void add_cells(Jinja *j, Builder *b, const Cell *text, size_t n)
{
    if (b->room - b->n < n) {
        size_t room = 2 * (b->n + n) + 64;
        Cell *more = grab(j, room, sizeof *more);
        if (b->n) memcpy(more, b->at, b->n * sizeof *more);
        b->at = more;
        b->room = room;
    }
    if (n) memcpy(b->at + b->n, text, n * sizeof *text);
    b->n += n;
}

static void add_string(Jinja *j, Builder *b, Value v)
{
    add_cells(j, b, v.text, v.n);
}

/* Adds ASCII text, which counts as the template's. */
static void add_words(Jinja *j, Builder *b, const char *text)
{
    for (Cell c; *text; text++) add_cells(j, b, (c = (Cell)*text | TEMPLATES, &c), 1);
}

static void add_item(Jinja *j, Values *to, Value v)
{
    if (to->n == to->room) {
        size_t room = 2 * to->room + 4;
        Value *more = grab(j, room, sizeof *more);
        if (to->n) memcpy(more, to->at, to->n * sizeof *more);
        to->at = more;
        to->room = room;
    }
    to->at[to->n++] = v;
}

static int is_white(Cell c)
{
    c = code(c);
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static int is_digit(Cell c)
{
    return code(c) - '0' < 10;
}

static int is_word_char(Cell c)
{
    return is_digit(c) || (code(c) | 32) - 'a' < 26 || code(c) == '_' || code(c) >= 128;
}

static int is_number(Value v)
{
    return v.kind == A_BOOL || v.kind == A_INTEGER || v.kind == A_REAL;
}

static double real_of(Value v)
{
    double x = 0;
    if (v.kind != A_REAL) return (double)v.integer;
    for (size_t i = 0; i < v.n; i++) x = is_digit(v.text[i]) ? x * 10 + (code(v.text[i]) - '0') : x;
    return v.n == 0 ? v.real : code(*v.text) == '-' ? -x : x;
}

static int truth(Value v)
{
    if (is_number(v)) return real_of(v) != 0;
    return v.kind >= A_GENERATOR || (v.kind >= A_STRING && v.n > 0);
}

/* What a loop over a value runs through, n of them. */
static const Value *items_of(Jinja *j, Value v, size_t *n)
{
    *n = v.kind == A_UNDEFINED ? 0 : v.n;
    if (v.kind == A_LIST || v.kind == A_GENERATOR || v.kind == A_UNDEFINED) return v.items;
    if (v.kind != A_STRING && v.kind != A_MAPPING) stop(j, "%s has no items", kind_names[v.kind]);
    Value *items = grab(j, v.n, sizeof *items);
    for (size_t i = 0; i < v.n; i++) {
        items[i] = v.kind == A_MAPPING ? v.items[2 * i] : slice(v, i, i + 1);
    }
    return items;
}

static const Value *member(Jinja *j, Value mapping, Value key);

static int equal(Jinja *j, Value a, Value b)
{
    count_steps(j, 1);
    if (is_number(a) && is_number(b)) {
        int whole = a.kind != A_REAL && b.kind != A_REAL;
        return whole ? a.integer == b.integer : real_of(a) == real_of(b);
    }
    if (a.kind != b.kind) return 0;
    if (a.kind == A_UNDEFINED || a.kind == A_NONE) return 1;
    if (a.kind > A_MAPPING) return a.items == b.items;
    if (a.n != b.n) return 0;
    count_steps(j, a.n / 8);
    if (a.kind == A_STRING) return same(a.text, b.text, a.n);
    enter(j);
    size_t i = 0;
    for (; i < a.n; i++) {
        int two = a.kind == A_MAPPING; /* whose keys may come in any order */
        const Value *other = two ? member(j, b, a.items[2 * i]) : &b.items[i];
        if (!other || !equal(j, a.items[two ? 2 * i + 1 : i], *other)) break;
    }
    j->depth--;
    return i == a.n;
}

/* The value of a key, NULL if there is none. */
static const Value *member(Jinja *j, Value mapping, Value key)
{
    for (size_t i = 0; i < mapping.n; i++) {
        if (equal(j, mapping.items[2 * i], key)) return &mapping.items[2 * i + 1];
    }
    return NULL;
}

/* Sets a key of a mapping that is being made. */
static void put_member(Jinja *j, Values *to, Value key, Value value)
{
    const Value *old = member(j, mapping(*to), key);
    if (old) {
        to->at[old - to->at] = value;
        return;
    }
    add_item(j, to, key);
    add_item(j, to, value);
}

/* Below, at or above zero as a comes before, with or behind b. */
static int compare(Jinja *j, Value a, Value b)
{
    if (is_number(a) && is_number(b)) {
        if (a.kind == A_REAL || b.kind == A_REAL) {
            return (real_of(a) > real_of(b)) - (real_of(a) < real_of(b));
        }
        return (a.integer > b.integer) - (a.integer < b.integer);
    }
    if (a.kind != b.kind || (a.kind != A_STRING && a.kind != A_LIST)) {
        stop(j, "%s and %s have no order", described(j, a), described(j, b));
    }
    size_t i = 0, n = a.n < b.n ? a.n : b.n;
    int order = (a.n > b.n) - (a.n < b.n);
    enter(j);
    if (a.kind == A_STRING) {
        while (i < n && code(a.text[i]) == code(b.text[i])) i++;
        if (i < n) order = code(a.text[i]) < code(b.text[i]) ? -1 : 1;
    } else {
        while (i < n && equal(j, a.items[i], b.items[i])) i++;
        if (i < n) order = compare(j, a.items[i], b.items[i]);
    }
    count_steps(j, i / 8);
    j->depth--;
    return order;
}

/* Where text has part from `from` on; text.n + 1 if nowhere. */
static size_t find(Jinja *j, Value text, Value part, size_t from)
{
    for (size_t i = from, n; part.n <= text.n && i <= text.n - part.n; i++) {
        for (n = 0; n < part.n && code(text.text[i + n]) == code(part.text[n]);) n++;
        if (n == part.n) return i;
        if (n > 8 || i % 8 == 0) count_steps(j, n / 8 + 1);
    }
    return text.n + 1;
}

static int contains(Jinja *j, Value all, Value one)
{
    size_t n;
    if (all.kind == A_MAPPING) return member(j, all, one) != NULL;
    if (all.kind == A_STRING && one.kind == A_STRING) return find(j, all, one, 0) <= all.n;
    if (all.kind == A_STRING) stop(j, "%s in a string", described(j, one));
    const Value *items = items_of(j, all, &n);
    while (n > 0 && !equal(j, items[n - 1], one)) n--;
    return n > 0;
}

static Variable *find_variable(Jinja *j, const Scope *scope, Value name)
{
    for (; scope; scope = scope->parent) {
        count_steps(j, 1);
        for (Variable *v = scope->first; v; v = v->next) {
            if (v->name.n == name.n && same(v->name.text, name.text, name.n)) return v;
        }
    }
    return NULL;
}

static void set_variable(Jinja *j, Scope *scope, Value name, Value value)
{
    Scope here = { NULL, scope->first };
    Variable *v = find_variable(j, &here, name);
    if (!v) {
        v = grab(j, 1, sizeof *v);
        *v = (Variable){ name, value, scope->first };
        scope->first = v;
    }
    v->value = value;
}

static Scope *new_scope(Jinja *j, const Scope *parent)
{
    Scope *s = grab(j, 1, sizeof *s);
    s->parent = parent;
    return s;
}

/* ==== Templates: values as text ==================================================================
 * As Python's str, repr and json.dumps write them.
 */

typedef struct {
    int json;                  /* or repr */
    int sorted, ascii;         /* keys in their order; other characters as \u */
    int indent;                /* of each level, -1: all on one line */
    Value between, behind_key; /* what separates items, and keys from values */
} Style;

/* A number as repr writes it: the shortest decimal that it is. */
static void add_real(Jinja *j, Builder *b, double x)
{
    char text[64], digits[40];
    int n = 0, at = 0, precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, x);
    while (strtod(digits, NULL) != x && ++precision < 17);
    const char *e = strchr(digits, 'e');
    if (!e) { /* Python's names for them */
        add_words(j, b, x > 0 ? "inf" : x < 0 ? "-inf" : "nan");
        return;
    }
    int exponent = atoi(e + 1), wide = exponent < -4 || exponent >= 16;
    int point = wide ? 1 : exponent + 1; /* digits in front of it */
    if (*digits == '-') text[at++] = '-';
    for (char *c = digits; *c != 'e'; c++) { /* a locale may have another point */
        if (is_digit((Cell)*c)) digits[n++] = *c;
    }
    for (int i = point < 1 ? point - 1 : 0; i < n || i < point + !wide; i++) {
        if (i == point && i > 0) text[at++] = '.';
        text[at++] = i >= 0 && i < n ? digits[i] : '0';
        if (point < 1 && i == point - 1) text[at++] = '.';
    }
    text[at] = 0;
    if (wide) snprintf(text + at, sizeof text - (size_t)at, "e%+03d", exponent);
    add_words(j, b, text);
}

/* Whether repr writes a character as it is. Of the rare ones that it doesn't, most. */
static int is_printable(Cell c)
{
    return c == ' ' || (!is_white(c) && (c < 0x7F || c > 0xA0) && c != 0xAD && c != 0xFEFF &&
                        (c < 0x200B || c > 0x200F) && (c < 0x2028 || c > 0x202E) &&
                        (c < 0x2060 || c > 0x206F) && (c < 0xE000 || c > 0xF8FF) && c < 0xE0000);
}

static void add_quoted(Jinja *j, Builder *b, Value v, const Style *s)
{
    static const char letters[] = "\nn\rr\tt\\\\\bb\ff"; /* the last two in JSON alone */
    int single = contains(j, v, words(j, "'")), twice = contains(j, v, words(j, "\""));
    Cell quote = s->json || (single && !twice) ? '"' : '\'';
    char escape[16] = { (char)quote, 0 };
    add_words(j, b, escape);
    for (size_t i = 0; i < v.n; i++) {
        Cell c = code(v.text[i]), high = c >= 0x10000 && c < INVALID ? c - 0x10000 : 0;
        size_t k = 0;
        while (k < (s->json ? 12 : 8) && (Cell)letters[k] != c) k += 2;
        *escape = 0;
        if (k < (s->json ? 12 : 8) || c == quote) {
            snprintf(escape, sizeof escape, "\\%c", c == quote ? (int)c : letters[k + 1]);
        } else if (s->ascii && high) {
            snprintf(escape, sizeof escape, "\\u%04x\\u%04x", 0xD800 + (high >> 10),
                     0xDC00 + (high & 0x3FF));
        } else if (c < 32 || (s->ascii && c >= 127) || (!s->json && !is_printable(c))) {
            if (c >= INVALID) c = 0xDC00 + c - INVALID; /* as Python reads such a byte */
            const char *format = s->json || c > 255 ? c > 0xFFFF ? "\\U%08x" : "\\u%04x"
                                                    : "\\x%02x";
            snprintf(escape, sizeof escape, format, c);
        }
        *escape ? add_words(j, b, escape) : add_cells(j, b, v.text + i, 1);
    }
    add_words(j, b, (char[]){ (char)quote, 0 });
}

static void break_line(Jinja *j, Builder *b, const Style *s, int level)
{
    if (s->indent >= 0) add_words(j, b, "\n");
    for (int i = 0; i < level * s->indent; i++) add_words(j, b, " ");
}

static const Value *sorted(Jinja *j, const Value *items, size_t n, size_t size, Value by, int down,
                           Value cased);

static void add_value(Jinja *j, Builder *b, Value v, const Style *s, int level)
{
    char number[32];
    int two = v.kind == A_MAPPING, on = v.kind == A_BOOL && v.integer;
    if (v.kind == A_NONE) {
        add_words(j, b, s->json ? "null" : "None");
    } else if (v.kind == A_BOOL) {
        add_words(j, b, s->json ? on ? "true" : "false" : on ? "True" : "False");
    } else if (v.kind == A_INTEGER) {
        snprintf(number, sizeof number, "%lld", (long long)v.integer);
        add_words(j, b, number);
    } else if (v.kind == A_REAL) {
        v.n ? add_string(j, b, v) : add_real(j, b, v.real);
    } else if (v.kind == A_STRING) {
        add_quoted(j, b, v, s);
    } else if (v.kind == A_LIST || two) {
        const Value *at = v.items;
        if (two && s->sorted) at = sorted(j, at, v.n, 2, none, 0, undefined);
        enter(j);
        add_words(j, b, two ? "{" : "[");
        for (size_t i = 0; i < v.n; i++) {
            if (i > 0) add_string(j, b, s->between);
            break_line(j, b, s, level + 1);
            int bare = two && s->json && at[2 * i].kind != A_STRING; /* JSON has keys in quotes */
            if (bare) add_words(j, b, "\"");
            if (two) add_value(j, b, at[2 * i], s, level + 1);
            if (bare) add_words(j, b, "\"");
            if (two) add_string(j, b, s->behind_key);
            add_value(j, b, at[two ? 2 * i + 1 : i], s, level + 1);
        }
        if (v.n > 0) break_line(j, b, s, level);
        add_words(j, b, two ? "}" : "]");
        j->depth--;
    } else {
        if (s->json) stop(j, "%s can't be written as JSON", described(j, v));
        add_words(j, b, v.kind == A_UNDEFINED ? "Undefined" : kind_names[v.kind]);
    }
}

/* What printing a value gives: Python's str. */
static Value text_of(Jinja *j, Value v)
{
    Builder b = { 0 };
    Style python = { .indent = -1 };
    if (v.kind == A_STRING) return v;
    if (v.kind == A_UNDEFINED) return string(NULL, 0);
    python.between = words(j, ", "), python.behind_key = words(j, ": ");
    add_value(j, &b, v, &python, 0);
    return string(b.at, b.n);
}

/* The number that a text begins with, undefined if none, and its length. */
static Value read_number_text(const Cell *text, size_t n, size_t *len)
{
    char ascii[400];
    size_t k = 0;
    int64_t whole = 0;
    int over = 0, points = 0, digits = 0;
    size_t i = n > 0 && (code(*text) == '-' || code(*text) == '+');
    for (; i < n; i++) {
        Cell c = code(text[i]);
        int point = c == '.' && !points && i + 1 < n && is_digit(text[i + 1]);
        if (!is_digit(c) && !point && !(c == '_' && digits)) break;
        points += point;
        if (!is_digit(c)) continue;
        digits++;
        over |= __builtin_mul_overflow(whole, 10, &whole) ||
                __builtin_add_overflow(whole, (int64_t)(c - '0'), &whole);
    }
    if (digits == 0) return undefined;
    size_t e = i + 1, sign = e < n && (code(text[e]) == '-' || code(text[e]) == '+');
    if (e + sign < n && (code(text[i]) | 32) == 'e' && is_digit(text[e + sign])) {
        for (i = e + sign; i < n && is_digit(text[i]);) i++;
        points = 1;
    }
    *len = i;
    if (!points && over) return (Value){ .kind = A_REAL, .n = i, .text = text };
    if (!points) return integer(code(*text) == '-' ? -whole : whole);
    for (size_t at = 0; at < i && k < sizeof ascii - 1; at++) {
        char c = (char)code(text[at]);
        if (c != '_') ascii[k++] = c == '.' ? *localeconv()->decimal_point : c;
    }
    ascii[k] = 0;
    return real(strtod(ascii, NULL));
}

/* ==== Templates: filters, tests, methods, functions ==============================================
 * To add one: a function, or a `how` of one, and a row of a table below. self is what it is of; an
 * argument that was not given is undefined.
 */

static Value call_builtin(Jinja *j, const Builtin *row, Value self, Arguments a);
static Value item(Jinja *j, Value v, Value index, int dot);
static const Builtin *find_builtin(const Builtin *rows, Value name);
static const Builtin filters[], tests[];

static Value want_string(Jinja *j, Value v)
{
    if (v.kind != A_STRING) stop(j, "%s, expected a string", described(j, v));
    return v;
}

static int64_t int_or(Value v, int64_t otherwise)
{
    return v.kind == A_INTEGER || v.kind == A_BOOL ? v.integer : otherwise;
}

/* Of Latin-1, Greek and Cyrillic letters. */
static Cell with_case(Cell c, int upper)
{
    Cell small = code(c) + (upper ? 0 : 32);
    int known = small - 'a' < 26 || (small - 0xE0 < 31 && small != 0xF7) ||
                (small - 0x3B1 < 25 && small != 0x3C2) || small - 0x430 < 32;
    if (known) return upper ? c - 32 : c + 32;
    small = code(c) + (upper ? 0 : 80);
    return small - 0x450 < 16 ? upper ? c - 80 : c + 80 : c;
}

/* how: 'u'pper, 'l'ower, 'c'apitalize, 't'itle, 'T' the filter of that name: behind fewer signs */
static Value do_case(Jinja *j, Value self, const Arguments *a)
{
    Value in = text_of(j, self), signs = words(j, "-({[<");
    Cell *text = grab(j, in.n, sizeof *text);
    for (size_t i = 0; i < in.n; i++) {
        Cell before = i ? in.text[i - 1] : ' ';
        int begins = with_case(before, 1) == with_case(before, 0);
        if (a->how == 'T') begins = is_white(before) || contains(j, signs, slice(in, i - 1, i));
        text[i] = with_case(in.text[i], a->how == 'u' || (a->how == 'c' && i == 0) ||
                                            ((a->how | 32) == 't' && begins));
    }
    return string(text, in.n);
}

/* What a value is compared by: without case, unless asked for. */
static Value folded(Jinja *j, Value v, Value case_sensitive)
{
    if (v.kind != A_STRING || truth(case_sensitive)) return v;
    return do_case(j, v, &(Arguments){ .how = 'l' });
}

static int is_stripped(Value chars, Cell c)
{
    size_t i = 0;
    while (i < chars.n && code(chars.text[i]) != code(c)) i++;
    return chars.kind == A_STRING ? i < chars.n : is_white(c);
}

/* Without these characters, or white space, at its ends. */
static Value stripped(Value v, Value chars, int left, int right)
{
    size_t from = 0, to = v.n;
    while (left && from < to && is_stripped(chars, v.text[from])) from++;
    while (right && from < to && is_stripped(chars, v.text[to - 1])) to--;
    return slice(v, from, to);
}

/* how: a bit for each side */
static Value do_strip(Jinja *j, Value self, const Arguments *a)
{
    return stripped(text_of(j, self), a->at[0], a->how & 1, a->how & 2);
}

/* At white space, of which there may be any amount, or at a text; at most so many times. */
static Value do_split(Jinja *j, Value self, const Arguments *a)
{
    Values parts = { 0 };
    Value at = a->at[0];
    int64_t most = int_or(a->at[1], -1);
    size_t i = 0, end;
    if (at.kind != A_NONE && at.kind != A_UNDEFINED) {
        if (want_string(j, at).n == 0) stop(j, "a split at an empty text");
        for (; most != 0 && (end = find(j, self, at, i)) <= self.n; i = end + at.n, most--) {
            add_item(j, &parts, slice(self, i, end));
        }
        add_item(j, &parts, slice(self, i, self.n));
        return list(parts);
    }
    for (;; i = end, most--) {
        while (i < self.n && is_white(self.text[i])) i++;
        for (end = i; end < self.n && (most == 0 || !is_white(self.text[end]));) end++;
        if (i == self.n) return list(parts);
        add_item(j, &parts, slice(self, i, end));
    }
}

static Value do_replace(Jinja *j, Value self, const Arguments *a)
{
    Builder b = { 0 };
    Value in = text_of(j, self), old = want_string(j, a->at[0]), by = want_string(j, a->at[1]);
    int64_t most = int_or(a->at[2], -1);
    size_t i = 0, end = 0;
    for (; most != 0 && (end = find(j, in, old, end)) <= in.n; most--) {
        add_cells(j, &b, in.text + i, end - i);
        add_string(j, &b, by);
        i = end + old.n;
        end = i + (old.n == 0);
    }
    add_string(j, &b, slice(in, i, in.n));
    return string(b.at, b.n);
}

/* Whether a string has a text, or one of several, at its beginning or (how 1) its end. */
static Value do_has_at_end(Jinja *j, Value self, const Arguments *a)
{
    size_t n = 1;
    const Value *all = a->at[0].kind == A_LIST ? items_of(j, a->at[0], &n) : a->at;
    for (size_t i = 0; i < n; i++) {
        size_t len = want_string(j, all[i]).n;
        if (len > self.n) continue;
        if (same(self.text + (a->how ? self.n - len : 0), all[i].text, len)) return boolean(1);
    }
    return boolean(0);
}

/* Where a string has a text first, or (how 1) last; -1 if nowhere. */
static Value do_find(Jinja *j, Value self, const Arguments *a)
{
    int64_t place = -1;
    want_string(j, a->at[0]);
    for (size_t at = 0; (at = find(j, self, a->at[0], at)) <= self.n; at++) {
        place = (int64_t)at;
        if (!a->how) break;
    }
    return integer(place);
}

/* The item of a dotted path of an item: a.b, or its number; the item itself without one. */
static Value at_path(Jinja *j, Value v, Value path)
{
    if (path.kind == A_UNDEFINED) return v;
    if (path.kind != A_STRING) return item(j, v, path, 0);
    for (size_t i = 0, end; i <= path.n; i = end + 1) {
        for (end = i; end < path.n && code(path.text[end]) != '.';) end++;
        v = item(j, v, slice(path, i, end), 0);
    }
    return v;
}

static Value do_join(Jinja *j, Value self, const Arguments *a)
{
    Builder b = { 0 };
    size_t n;
    const Value *items = items_of(j, self, &n);
    Value between = text_of(j, a->at[0]);
    for (size_t i = 0; i < n; i++) {
        if (i > 0) add_string(j, &b, between);
        add_string(j, &b, text_of(j, at_path(j, items[i], a->at[1])));
    }
    return string(b.at, b.n);
}

static Value do_length(Jinja *j, Value self, const Arguments *a)
{
    (void)a;
    if (self.kind == A_UNDEFINED) return integer(0);
    if (self.kind < A_STRING || self.kind > A_MAPPING) {
        stop(j, "the length of %s", kind_names[self.kind]);
    }
    return integer((int64_t)self.n);
}

/* how 1: as Jinja's Markup */
static Value do_string(Jinja *j, Value self, const Arguments *a)
{
    Value v = text_of(j, self);
    v.escapes |= a->how;
    return v;
}

static Value do_list(Jinja *j, Value self, const Arguments *a)
{
    size_t n;
    (void)a;
    const Value *items = items_of(j, self, &n);
    return (Value){ .kind = A_LIST, .n = n, .items = items };
}

static Value pairs_of(Jinja *j, const Value *items, size_t n)
{
    Values pairs = { 0 };
    for (size_t i = 0; i < n; i++) {
        add_item(j, &pairs, (Value){ .kind = A_LIST, .n = 2, .items = items + 2 * i });
    }
    return list(pairs);
}

/* The pairs of a mapping; how 1: a generator of them. */
static Value do_items(Jinja *j, Value self, const Arguments *a)
{
    if (self.kind == A_UNDEFINED) return generator((Values){ 0 });
    if (self.kind != A_MAPPING) stop(j, "%s, expected a mapping", described(j, self));
    Value pairs = pairs_of(j, self.items, self.n);
    if (a->how) pairs.kind = A_GENERATOR;
    return pairs;
}

static Value do_values(Jinja *j, Value self, const Arguments *a)
{
    Values all = { 0 };
    (void)a;
    for (size_t i = 0; i < self.n; i++) add_item(j, &all, self.items[2 * i + 1]);
    return list(all);
}

static Value do_get(Jinja *j, Value self, const Arguments *a)
{
    const Value *v = member(j, self, a->at[0]);
    return v ? *v : a->at[1].kind == A_UNDEFINED ? none : a->at[1];
}

static Value do_default(Jinja *j, Value self, const Arguments *a)
{
    if (self.kind != A_UNDEFINED && (truth(self) || !truth(a->at[1]))) return self;
    return a->at[0].kind == A_UNDEFINED && a->n == 0 ? words(j, "") : a->at[0];
}

/* The first item, or (how 1) the last. */
static Value do_end(Jinja *j, Value self, const Arguments *a)
{
    size_t n;
    if (a->how && self.kind == A_GENERATOR) stop(j, "the last of a generator");
    const Value *items = items_of(j, self, &n);
    return n ? items[a->how ? n - 1 : 0] : undefined;
}

/* A number of a text or a number: an integer, or (how 1) a real one. */
static Value do_number(Jinja *j, Value self, const Arguments *a)
{
    size_t len = 0;
    Value v = self.kind == A_STRING ? stripped(self, none, 1, 1) : self, number = v;
    if (v.kind == A_UNDEFINED) stop(j, "%s as a number", described(j, v));
    if (v.kind == A_STRING) number = read_number_text(v.text, v.n, &len);
    if (!is_number(number) || (v.kind == A_STRING && len < v.n)) {
        return a->at[0].kind != A_UNDEFINED ? a->at[0] : a->how ? real(0) : integer(0);
    }
    double x = real_of(number);
    if (a->how) return real(x);
    if (number.kind == A_BOOL) return integer(number.integer);
    return number.kind == A_REAL && x > -9e18 && x < 9e18 ? integer((int64_t)x) : number;
}

/* n entries of `size` values each in their order, without case by a path of the first value, or, of
 * pairs, by the value of that number; by none, or cased: as they are. */
static const Value *sorted(Jinja *j, const Value *items, size_t n, size_t size, Value by, int down,
                           Value cased)
{
    Value *at = grab(j, n * size, sizeof *at), *keys = grab(j, n, sizeof *keys);
    for (size_t i = 0; i < n; i++) {
        const Value *entry = items + i * size;
        Value key = size == 2 ? entry[int_or(by, 0)] : at_path(j, *entry, by);
        if (by.kind != A_NONE) key = folded(j, key, cased);
        size_t k = i;
        for (; k > 0; k--) { /* insertion keeps what is equal in its order */
            int order = compare(j, keys[k - 1], key);
            if (down ? order >= 0 : order <= 0) break;
            keys[k] = keys[k - 1];
            memcpy(at + k * size, at + (k - 1) * size, size * sizeof *at);
            count_steps(j, 1);
        }
        keys[k] = key;
        memcpy(at + k * size, entry, size * sizeof *at);
    }
    return at;
}

static Value do_dictsort(Jinja *j, Value self, const Arguments *a)
{
    int by_value = a->at[1].kind == A_STRING && is_text(a->at[1], "value");
    if (self.kind != A_MAPPING) stop(j, "%s, expected a mapping", described(j, self));
    const Value *pairs = sorted(j, self.items, self.n, 2, integer(by_value), truth(a->at[2]),
                                a->at[0]);
    return pairs_of(j, pairs, self.n);
}

static Value do_sort(Jinja *j, Value self, const Arguments *a)
{
    size_t n;
    const Value *items = items_of(j, self, &n);
    items = sorted(j, items, n, 1, a->at[2], truth(a->at[0]), a->at[1]);
    return (Value){ .kind = A_LIST, .n = n, .items = items };
}

static Value do_unique(Jinja *j, Value self, const Arguments *a)
{
    Values kept = { 0 }, keys = { 0 };
    size_t n;
    const Value *items = items_of(j, self, &n);
    for (size_t i = 0; i < n; i++) {
        Value key = folded(j, at_path(j, items[i], a->at[1]), a->at[0]);
        if (contains(j, list(keys), key)) continue;
        add_item(j, &keys, key);
        add_item(j, &kept, items[i]);
    }
    return generator(kept);
}

/* The least (how -1) or greatest item. */
static Value do_extreme(Jinja *j, Value self, const Arguments *a)
{
    size_t n, best = 0;
    const Value *items = items_of(j, self, &n);
    for (size_t i = 1; i < n; i++) {
        Value now = folded(j, at_path(j, items[best], a->at[1]), a->at[0]);
        Value next = folded(j, at_path(j, items[i], a->at[1]), a->at[0]);
        if (compare(j, next, now) * a->how > 0) best = i;
    }
    return n ? items[best] : undefined;
}

/* map(attribute="name") or map("filter", ...) */
static Value do_map(Jinja *j, Value self, const Arguments *a)
{
    Values all = { 0 };
    Value path = undefined, otherwise = undefined;
    size_t n = 0;
    const Value *items = truth(self) ? items_of(j, self, &n) : NULL;
    const Builtin *row = a->n && a->at[0].kind == A_STRING ? find_builtin(filters, a->at[0]) : NULL;
    for (size_t i = 0; i < a->n_named && !row; i++) {
        if (is_text(a->names[i], "attribute")) path = a->named[i];
        if (is_text(a->names[i], "default")) otherwise = a->named[i];
    }
    if (!row && path.kind == A_UNDEFINED) stop(j, "map without a filter that is known");
    for (size_t i = 0; i < n; i++) {
        Arguments rest = { row ? a->at + 1 : NULL, a->names, a->named, a->n - 1, a->n_named, 0 };
        Value v = row ? call_builtin(j, row, items[i], rest) : at_path(j, items[i], path);
        add_item(j, &all, v.kind == A_UNDEFINED && !row ? otherwise : v);
    }
    return generator(all);
}

/* The items that pass a test, or (how 1) fail it; how 2: those of which an attribute does. */
static Value do_select(Jinja *j, Value self, const Arguments *a)
{
    Values kept = { 0 };
    size_t n = 0, first = a->how & 2 ? 1 : 0;
    const Value *items = truth(self) ? items_of(j, self, &n) : NULL;
    const Builtin *row = a->n > first ? find_builtin(tests, want_string(j, a->at[first])) : NULL;
    if (a->n < first || (a->n > first && !row)) stop(j, "a selection without a test that is known");
    for (size_t i = 0; i < n; i++) {
        Value v = first ? at_path(j, items[i], a->at[0]) : items[i];
        Arguments rest = { row ? a->at + first + 1 : NULL, NULL, NULL, a->n - first - 1, 0, 0 };
        if (row) v = call_builtin(j, row, v, rest);
        if (truth(v) != (a->how & 1)) add_item(j, &kept, items[i]);
    }
    return generator(kept);
}

/* Spaces in front of each line but the first (unless at[1]) and blank ones (unless at[2]). */
static Value do_indent(Jinja *j, Value self, const Arguments *a)
{
    Builder b = { 0 };
    Value in = text_of(j, self);
    int64_t width = int_or(a->at[0], a->at[0].kind == A_STRING ? 0 : 4);
    for (size_t i = 0; i < in.n; i++) {
        int begins = i == 0 ? truth(a->at[1]) : code(in.text[i - 1]) == '\n';
        if (i > 0 && code(in.text[i]) == '\n' && !truth(a->at[2])) begins = 0;
        for (int64_t k = 0; begins && k < width; k++) add_words(j, &b, " ");
        if (begins && a->at[0].kind == A_STRING) add_string(j, &b, a->at[0]);
        add_cells(j, &b, in.text + i, 1);
    }
    return string(b.at, b.n);
}

static Value do_tojson(Jinja *j, Value self, const Arguments *a)
{
    Builder b = { 0 };
    Style s = { .json = 1, .ascii = truth(a->at[0]), .sorted = truth(a->at[3]) };
    Value separators = a->at[2];
    int64_t indent = int_or(a->at[1], -1);
    s.indent = indent > 64 ? 64 : (int)indent;
    s.between = words(j, s.indent < 0 ? ", " : ","), s.behind_key = words(j, ": ");
    if (separators.kind == A_LIST && separators.n == 2) {
        s.between = text_of(j, separators.items[0]);
        s.behind_key = text_of(j, separators.items[1]);
    }
    add_value(j, &b, self, &s, 0);
    return string(b.at, b.n);
}

/* What would change a list or a mapping; Jinja's sandbox forbids it too. */
static Value do_change(Jinja *j, Value self, const Arguments *a)
{
    (void)a;
    stop(j, "a template can't change %s", kind_names[self.kind]);
}

/* how: a bit for each kind of value that passes */
static Value is_kind(Jinja *j, Value self, const Arguments *a)
{
    (void)j;
    return boolean(a->how >> self.kind & 1);
}

static Value is_truth(Jinja *j, Value self, const Arguments *a)
{
    (void)j;
    return boolean(self.kind == A_BOOL && self.integer == a->how);
}

/* how: '=' '!' '<' '>', 'l'ess or equal, 'g'reater or equal, 'i'n, 'n'ot in */
static Value is_compared(Jinja *j, Value self, const Arguments *a)
{
    int how = a->how;
    Value other = a->at[0];
    if (how == '=' || how == '!') return boolean(equal(j, self, other) == (how == '='));
    if (how == 'i' || how == 'n') return boolean(contains(j, other, self) == (how == 'i'));
    int order = compare(j, self, other);
    if (order == 0) return boolean(how == 'l' || how == 'g');
    return boolean((order < 0) == (how == '<' || how == 'l'));
}

static Value do_range(Jinja *j, Value self, const Arguments *a)
{
    Values all = { 0 };
    int64_t from = a->n > 1 ? int_or(a->at[0], 0) : 0, step = int_or(a->at[2], 1);
    const Value *end = a->n > 1 ? &a->at[1] : &a->at[0];
    (void)self;
    if (a->n > 1 && a->at[0].kind != A_INTEGER) stop(j, "a range from %s", described(j, a->at[0]));
    if (end->kind != A_INTEGER || step == 0) stop(j, "a range up to %s", described(j, *end));
    double wide = ((double)end->integer - (double)from) / (double)step;
    if (wide > MAX_RANGE) stop(j, "a range of %.0f numbers, at most %d", wide, MAX_RANGE);
    for (int64_t i = 0; (double)i < wide; i++)
        add_item(j, &all, integer((int64_t)((uint64_t)from + (uint64_t)i * (uint64_t)step)));
    return list(all);
}

/* dict(a=1), or (how 1) namespace(a=1) */
static Value do_mapping(Jinja *j, Value self, const Arguments *a)
{
    Values all = { 0 };
    (void)self;
    for (size_t i = 0; i < a->n; i++) {
        Value m = a->at[i];
        if (m.kind != A_MAPPING) stop(j, "%s, expected a mapping", described(j, m));
        for (size_t k = 0; k < m.n; k++) put_member(j, &all, m.items[2 * k], m.items[2 * k + 1]);
    }
    for (size_t i = 0; i < a->n_named; i++) put_member(j, &all, a->names[i], a->named[i]);
    if (!a->how) return mapping(all);
    Scope *members = new_scope(j, NULL);
    for (size_t i = 0; i < all.n; i += 2) {
        set_variable(j, members, want_string(j, all.at[i]), all.at[i + 1]);
    }
    return (Value){ .kind = A_NAMESPACE, .scope = members };
}

static _Noreturn Value do_raise(Jinja *j, Value self, const Arguments *a)
{
    (void)self;
    const char *why = bytes_of(j, text_of(j, a->at[0]));
    set_error(j->error, j->error_size, "%s", *why ? why : "the chat template raises an exception");
    longjmp(j->failed, 1);
}

static Value do_strftime(Jinja *j, Value self, const Arguments *a)
{
    char text[256];
    struct tm date;
    time_t now = (time_t)j->now;
    (void)self;
    if (!localtime_r(&now, &date)) stop(j, "a time that has no date");
    size_t len = strftime(text, sizeof text, bytes_of(j, want_string(j, a->at[0])), &date);
    return read_text(j, text, len, TEMPLATES);
}

/* clang-format off */
static const Builtin filters[] = {
    { "capitalize", "", do_case, 'c' },    { "count", "", do_length, 0 },
    { "d", "default_value boolean", do_default, 0 },
    { "default", "default_value boolean", do_default, 0 },
    { "dictsort", "case_sensitive by reverse", do_dictsort, 0 },
    { "first", "", do_end, 0 },            { "float", "default", do_number, 1 },
    { "indent", "width first blank", do_indent, 0 },
    { "int", "default", do_number, 0 },    { "items", "", do_items, 1 },
    { "join", "d attribute", do_join, 0 }, { "last", "", do_end, 1 },
    { "length", "", do_length, 0 },        { "list", "", do_list, 0 },
    { "lower", "", do_case, 'l' },         { "map", NULL, do_map, 0 },
    { "max", "case_sensitive attribute", do_extreme, 1 },
    { "min", "case_sensitive attribute", do_extreme, -1 },
    { "reject", NULL, do_select, 1 },      { "rejectattr", NULL, do_select, 3 },
    { "replace", "old new count", do_replace, 0 },
    { "safe", "", do_string, 1 },          { "select", NULL, do_select, 0 },
    { "selectattr", NULL, do_select, 2 },
    { "sort", "reverse case_sensitive attribute", do_sort, 0 },
    { "string", "", do_string, 0 },        { "title", "", do_case, 'T' },
    { "tojson", "ensure_ascii indent separators sort_keys", do_tojson, 0 },
    { "trim", "chars", do_strip, 3 },
    { "unique", "case_sensitive attribute", do_unique, 0 },
    { "upper", "", do_case, 'u' },         { 0 },
};

#define KIND(k) (1 << A_##k)
#define SEQUENCE (KIND(STRING) | KIND(LIST) | KIND(MAPPING) | KIND(UNDEFINED))

static const Builtin tests[] = {
    { "boolean", "", is_kind, KIND(BOOL) },   { "defined", "", is_kind, ~KIND(UNDEFINED) },
    { "eq", "other", is_compared, '=' },      { "equalto", "other", is_compared, '=' },
    { "false", "", is_truth, 0 },             { "float", "", is_kind, KIND(REAL) },
    { "ge", "other", is_compared, 'g' },      { "gt", "other", is_compared, '>' },
    { "in", "seq", is_compared, 'i' },        { "integer", "", is_kind, KIND(INTEGER) },
    { "iterable", "", is_kind, SEQUENCE | KIND(GENERATOR) },
    { "le", "other", is_compared, 'l' },      { "lt", "other", is_compared, '<' },
    { "mapping", "", is_kind, KIND(MAPPING) }, { "ne", "other", is_compared, '!' },
    { "none", "", is_kind, KIND(NONE) },
    { "number", "", is_kind, KIND(BOOL) | KIND(INTEGER) | KIND(REAL) },
    { "sequence", "", is_kind, SEQUENCE },    { "string", "", is_kind, KIND(STRING) },
    { "true", "", is_truth, 1 },              { "undefined", "", is_kind, KIND(UNDEFINED) },
    { 0 },
};

static const Builtin string_methods[] = {
    { "capitalize", "", do_case, 'c' },            { "endswith", "suffix", do_has_at_end, 1 },
    { "find", "sub", do_find, 0 },                 { "lower", "", do_case, 'l' },
    { "lstrip", "chars", do_strip, 1 },            { "replace", "old new count", do_replace, 0 },
    { "rfind", "sub", do_find, 1 },                { "rstrip", "chars", do_strip, 2 },
    { "split", "sep maxsplit", do_split, 0 },      { "startswith", "prefix", do_has_at_end, 0 },
    { "strip", "chars", do_strip, 3 },             { "title", "", do_case, 't' },
    { "upper", "", do_case, 'u' },                 { 0 },
};

static const Builtin list_methods[] = {
    { "append", NULL, do_change, 0 }, { "extend", NULL, do_change, 0 },
    { "insert", NULL, do_change, 0 }, { "pop", NULL, do_change, 0 }, { 0 },
};

static const Builtin mapping_methods[] = {
    { "get", "key default", do_get, 0 }, { "items", "", do_items, 0 },
    { "keys", "", do_list, 0 },          { "pop", NULL, do_change, 0 },
    { "setdefault", NULL, do_change, 0 }, { "update", NULL, do_change, 0 },
    { "values", "", do_values, 0 },      { 0 },
};

static const Builtin functions[] = {
    { "dict", NULL, do_mapping, 0 },
    { "namespace", NULL, do_mapping, 1 },
    { "raise_exception", "message", do_raise, 0 },
    { "range", "start stop step", do_range, 0 },
    { "strftime_now", "format", do_strftime, 0 },
    { 0 },
};
/* clang-format on */

static const Builtin *find_builtin(const Builtin *rows, Value name)
{
    while (rows->name && !is_text(name, rows->name)) rows++;
    return rows->name ? rows : NULL;
}

/* Runs a built-in with its arguments at the places of its parameters. */
static Value call_builtin(Jinja *j, const Builtin *row, Value self, Arguments a)
{
    Value bound[MAX_PARAMETERS];
    size_t n = 0, used = 0, len;
    a.how = row->how;
    if (!row->parameters) return row->run(j, self, &a);
    for (const char *p = row->parameters; *p; n++, p += len + (p[len] == ' ')) {
        char name[16] = { 0 };
        len = strcspn(p, " ");
        memcpy(name, p, len);
        bound[n] = n < a.n ? a.at[n] : undefined;
        for (size_t i = 0; i < a.n_named; i++) {
            if (is_text(a.names[i], name)) bound[n] = a.named[i], used++;
        }
    }
    if (a.n > n || used < a.n_named) {
        stop(j, "%s with arguments that it does not take; it knows: %s", row->name,
             row->parameters);
    }
    a.at = bound;
    return row->run(j, self, &a);
}

/* ==== Templates: what nodes do ===================================================================
 * Expressions give a value; statements write to j->out and give none.
 */

enum { BREAK = 1, CONTINUE };

static Value run(Jinja *j, const Node *n)
{
    enter(j);
    j->where = n->where;
    Value v = n->run(j, n);
    j->where = n->where;
    j->depth--;
    return v;
}

static void run_all(Jinja *j, const Node *first)
{
    for (const Node *n = first; n && !j->leaving; n = n->next) run(j, n);
}

/* What a list of statements writes. */
static Value captured(Jinja *j, const Node *first)
{
    Builder text = { 0 }, *out = j->out;
    j->out = &text;
    run_all(j, first);
    j->out = out;
    return string(text.at, text.n);
}

static Value run_captured(Jinja *j, const Node *n)
{
    return captured(j, n->a);
}

static Value run_constant(Jinja *j, const Node *n)
{
    (void)j;
    return n->value;
}

static Value run_text(Jinja *j, const Node *n)
{
    add_string(j, j->out, n->value);
    return none;
}

static Value run_print(Jinja *j, const Node *n)
{
    add_string(j, j->out, text_of(j, run(j, n->a)));
    return none;
}

static Value bound_to(Jinja *j, const Builtin *row, Value self)
{
    Bound *b = grab(j, 1, sizeof *b);
    *b = (Bound){ row, self };
    return (Value){ .kind = A_FUNCTION, .bound = b };
}

static Value missing(Value name)
{
    if (name.kind != A_STRING) return undefined;
    return (Value){ .kind = A_UNDEFINED, .n = name.n, .text = name.text };
}

static Value run_name(Jinja *j, const Node *n)
{
    const Variable *v = find_variable(j, j->scope, n->value);
    if (v) return v->value;
    return n->row ? bound_to(j, n->row, undefined) : missing(n->value);
}

static Value run_list(Jinja *j, const Node *n)
{
    Values items = { 0 };
    for (const Node *i = n->a; i; i = i->next) add_item(j, &items, run(j, i));
    return list(items);
}

/* What any mapping has as "role", which templates make marks of, as the template's own: without
 * signs it is none by itself. */
static Value trusted(Jinja *j, Value role)
{
    size_t i = 0;
    while (role.kind == A_STRING && i < role.n && is_word_char(role.text[i])) i++;
    if (role.kind != A_STRING || i < role.n) return role;
    Cell *text = grab(j, i, sizeof *text);
    while (i-- > 0) text[i] = role.text[i] | TEMPLATES;
    return string(text, role.n);
}

static Value run_mapping(Jinja *j, const Node *n)
{
    Values items = { 0 };
    for (const Node *i = n->a; i; i = i->next) {
        Value key = run(j, i->a), v = run(j, i->b);
        put_member(j, &items, key,
                   key.kind == A_STRING && is_text(key, "role") ? trusted(j, v) : v);
    }
    return mapping(items);
}

static Value run_not(Jinja *j, const Node *n)
{
    return boolean(!truth(run(j, n->a)));
}

static Value run_and(Jinja *j, const Node *n)
{
    Value v = run(j, n->a);
    return truth(v) ? run(j, n->b) : v;
}

static Value run_or(Jinja *j, const Node *n)
{
    Value v = run(j, n->a);
    return truth(v) ? v : run(j, n->b);
}

static Value run_choice(Jinja *j, const Node *n)
{
    if (truth(run(j, n->a))) return run(j, n->b);
    return n->c ? run(j, n->c) : undefined;
}

static Value run_compare(Jinja *j, const Node *n)
{
    Value a = run(j, n->a), b = run(j, n->b);
    return is_compared(j, a, &(Arguments){ .at = &b, .n = 1, .how = (int)n->value.integer });
}

/* Arithmetic as Python's: / gives a real number, // and % round down. */
static Value calculate(Jinja *j, int sign, Value a, Value b)
{
    int64_t x = a.integer, y = b.integer, z = 0;
    double p = real_of(a), q = real_of(b), r = 1;
    int whole = a.kind != A_REAL && b.kind != A_REAL, over = 1;
    if (strchr("/f%", sign) && q == 0) stop(j, "a division by zero");
    if (sign == '+') over = __builtin_add_overflow(x, y, &z), r = p + q;
    if (sign == '-') over = __builtin_sub_overflow(x, y, &z), r = p - q;
    if (sign == '*') over = __builtin_mul_overflow(x, y, &z), r = p * q;
    if (sign == '/') r = p / q, whole = 0;
    if (sign == 'f' || sign == '%') {
        if (whole && y != -1) {
            int64_t down = x % y && (x < 0) != (y < 0);
            return integer(sign == 'f' ? x / y - down : x % y + down * y);
        }
        r = p / q;
        if (r > -9e15 && r < 9e15) r = (double)((int64_t)r - (r < (double)(int64_t)r));
        if (sign == '%') r = p - r * q;
    }
    if (sign == '^') {
        if (b.kind == A_REAL) y = q > -1e9 && q < 1e9 ? (int64_t)q : 0;
        if ((double)y != q || (p == 0 && y < 0)) stop(j, "a power that is not known here");
        for (uint64_t k = y < 0 ? -(uint64_t)y : (uint64_t)y; k > 0; k /= 2, p *= p) {
            if (k % 2) r *= p;
        }
        if (y < 0) r = 1 / r, whole = 0;
    }
    if (whole && !over) return integer(z);
    return whole && r > -9e15 && r < 9e15 ? integer((int64_t)r) : real(r);
}

static Value run_negate(Jinja *j, const Node *n)
{
    Value v = run(j, n->a);
    if (!is_number(v)) stop(j, "minus %s", described(j, v));
    return v.kind == A_REAL ? real(-real_of(v)) : calculate(j, '-', integer(0), v);
}

/* Two strings or lists behind each other, or one `times` times. */
static Value joined(Jinja *j, Value a, Value b, int64_t times)
{
    Builder text = { 0 };
    Values items = { 0 };
    if (times > MAX_TEXT) stop(j, "%lld times %s", (long long)times, described(j, a));
    for (; times > 0 && a.n + b.n > 0; times--) {
        if (a.kind == A_STRING) add_string(j, &text, a), add_string(j, &text, b);
        for (size_t i = 0; a.kind == A_LIST && i < a.n; i++) add_item(j, &items, a.items[i]);
        for (size_t i = 0; a.kind == A_LIST && i < b.n; i++) add_item(j, &items, b.items[i]);
    }
    return a.kind == A_STRING ? string(text.at, text.n) : list(items);
}

/* Text that is added to what was made "safe" is escaped for HTML, which has no place in a chat; but
 * that is what published templates with "safe" were seen to write. */
static Value escaped(Jinja *j, Value v)
{
    static const char *const rows[] = { "&&amp;", "<&lt;", ">&gt;", "\"&#34;", "'&#39;" };
    Builder b = { 0 };
    for (size_t i = 0, k; i < v.n; i++) {
        for (k = 0; k < 5 && code(v.text[i]) != (Cell)*rows[k];) k++;
        k < 5 ? add_words(j, &b, rows[k] + 1) : add_cells(j, &b, v.text + i, 1);
    }
    return string(b.at, b.n);
}

static Value run_arithmetic(Jinja *j, const Node *n)
{
    Value a = run(j, n->a), b = run(j, n->b);
    int sign = (int)n->value.integer, row = a.kind == A_STRING || a.kind == A_LIST;
    if (is_number(a) && is_number(b)) return calculate(j, sign, a, b);
    if (sign == '+' && row && a.kind == b.kind) {
        int safe = a.escapes || b.escapes;
        if (safe && !a.escapes) a = escaped(j, a);
        if (safe && !b.escapes) b = escaped(j, b);
        Value v = joined(j, a, b, 1);
        v.escapes = safe;
        return v;
    }
    if (sign == '*' && a.kind == A_INTEGER && (b.kind == A_STRING || b.kind == A_LIST)) {
        return joined(j, b, (Value){ .kind = b.kind }, a.integer);
    }
    if (sign == '*' && row && b.kind == A_INTEGER) {
        return joined(j, a, (Value){ .kind = a.kind }, b.integer);
    }
    stop(j, "%s %s %s", described(j, a),
         sign == 'f'   ? "//"
         : sign == '^' ? "**"
                       : (char[]){ (char)sign, 0 },
         described(j, b));
}

static Value run_join(Jinja *j, const Node *n)
{
    Value a = text_of(j, run(j, n->a));
    return joined(j, a, text_of(j, run(j, n->b)), 1);
}

static Value loop_attribute(const Loop *l, Value name)
{
    int64_t i = (int64_t)l->i, n = (int64_t)l->n, depth = (int64_t)l->depth;
    const struct {
        const char *name;
        Value value;
    } rows[] = { { "index", integer(i + 1) },
                 { "index0", integer(i) },
                 { "revindex", integer(n - i) },
                 { "revindex0", integer(n - i - 1) },
                 { "first", boolean(i == 0) },
                 { "last", boolean(i == n - 1) },
                 { "length", integer(n) },
                 { "depth", integer(depth) },
                 { "depth0", integer(depth - 1) },
                 { "previtem", i > 0 ? l->items[i - 1] : undefined },
                 { "nextitem", i < n - 1 ? l->items[i + 1] : undefined } };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        if (is_text(name, rows[k].name)) return rows[k].value;
    }
    return missing(name);
}

/* What a dot gives that no key gives; methods come before keys. */
static Value attribute(Jinja *j, Value v, Value name)
{
    const Builtin *methods = v.kind == A_STRING    ? string_methods
                             : v.kind == A_LIST    ? list_methods
                             : v.kind == A_MAPPING ? mapping_methods
                                                   : NULL;
    const Builtin *row = methods ? find_builtin(methods, name) : NULL;
    Scope members = { NULL, v.kind == A_NAMESPACE ? v.scope->first : NULL };
    const Variable *found = find_variable(j, &members, name);
    if (v.kind == A_LOOP) return loop_attribute(v.loop, name);
    return row ? bound_to(j, row, v) : found ? found->value : missing(name);
}

/* v.index or v[index] */
static Value item(Jinja *j, Value v, Value index, int dot)
{
    int named = index.kind == A_STRING;
    const Value *found = NULL;
    if (v.kind == A_UNDEFINED) {
        stop(j, "%s of %s", named ? bytes_of(j, index) : "an item", described(j, v));
    }
    Value it = named ? attribute(j, v, index) : undefined;
    if (dot && it.kind != A_UNDEFINED) return it;
    if (v.kind == A_MAPPING) found = member(j, v, index);
    if (found) return *found;
    if ((v.kind != A_STRING && v.kind != A_LIST) || named) return named ? it : undefined;
    int64_t i = int_or(index, INT64_MAX), n = (int64_t)v.n;
    i += i < 0 ? n : 0;
    if (i < 0 || i >= n) return undefined;
    return v.kind == A_STRING ? slice(v, (size_t)i, (size_t)i + 1) : v.items[i];
}

static Value run_item(Jinja *j, const Node *n)
{
    Value v = run(j, n->a);
    return item(j, v, n->b ? run(j, n->b) : n->value, !n->b);
}

/* An end of a slice: between `least` and as many more as there are items. */
static int64_t slice_end(Jinja *j, const Node *n, int64_t len, int64_t least, int64_t otherwise)
{
    Value v = n ? run(j, n) : none;
    if (v.kind == A_NONE) return otherwise;
    if (v.kind != A_INTEGER) stop(j, "a slice up to %s", described(j, v));
    int64_t i = v.integer + (v.integer < 0 ? len : 0);
    return i < least ? least : i > len + least ? len + least : i;
}

/* a[b:c:d] */
static Value run_slice(Jinja *j, const Node *n)
{
    Value v = run(j, n->a), step = n->d ? run(j, n->d) : none;
    Builder text = { 0 };
    Values items = { 0 };
    int64_t len = (int64_t)v.n, by = int_or(step, 1), back = by < 0;
    if (v.kind != A_STRING && v.kind != A_LIST) stop(j, "a slice of %s", described(j, v));
    if (by == 0) stop(j, "a slice in steps of 0");
    int64_t from = slice_end(j, n->b, len, -back, back ? len - 1 : 0);
    int64_t to = slice_end(j, n->c, len, -back, back ? -1 : len);
    if (by == 1 && v.kind == A_STRING)
        return slice(v, (size_t)from, (size_t)(to < from ? from : to));
    for (int64_t i = from; back ? i > to : i < to; i += by) {
        v.kind == A_STRING ? add_cells(j, &text, v.text + i, 1) : add_item(j, &items, v.items[i]);
        if (by > len || by < -len) break;
    }
    return v.kind == A_STRING ? string(text.at, text.n) : list(items);
}

/* *a: the items of a list as arguments. */
static Value run_spread(Jinja *j, const Node *n)
{
    return run(j, n->a);
}

/* The arguments of a call as they are written. */
static Arguments arguments_of(Jinja *j, const Node *positional, const Node *keywords)
{
    Values at = { 0 }, names = { 0 }, named = { 0 };
    for (const Node *n = positional; n; n = n->next) {
        Value v = run(j, n);
        size_t many = 1;
        const Value *all = n->run == run_spread ? items_of(j, v, &many) : &v;
        for (size_t i = 0; i < many; i++) add_item(j, &at, all[i]);
    }
    for (const Node *n = keywords; n; n = n->next) {
        add_item(j, &names, n->value);
        add_item(j, &named, run(j, n->a));
    }
    return (Arguments){ at.at, names.at, named.at, at.n, named.n, 0 };
}

/* Runs a macro's body in a scope of its own, and gives what it writes. */
static Value call_macro(Jinja *j, const Macro *m, Arguments a)
{
    Scope *scope = new_scope(j, m->scope), *outer = j->scope;
    size_t at = 0, used = 0;
    j->scope = scope;
    for (size_t k = 0; k < a.n_named; k++) {
        int known = is_text(a.names[k], "caller");
        for (const Node *p = m->node->a; p; p = p->next) {
            known |= p->value.n == a.names[k].n && same(p->value.text, a.names[k].text, p->value.n);
        }
        used += (size_t)known;
        set_variable(j, scope, a.names[k], a.named[k]);
    }
    for (const Node *p = m->node->a; p; p = p->next, at++) {
        Scope here = { NULL, scope->first };
        if (at >= a.n && find_variable(j, &here, p->value)) continue;
        set_variable(j, scope, p->value, at < a.n ? a.at[at] : p->a ? run(j, p->a) : undefined);
    }
    if (a.n > at || used < a.n_named) {
        stop(j, "the macro %s is called with arguments that it does not take",
             bytes_of(j, m->node->value));
    }
    Value text = captured(j, m->node->b);
    j->leaving = 0;
    j->scope = outer;
    return text;
}

static void assign(Jinja *j, const Node *target, Value v)
{
    size_t n, i = 0;
    if (target->run == run_name) {
        set_variable(j, j->scope, target->value, v);
    } else if (target->run == run_item) {
        Value space = run(j, target->a);
        if (space.kind != A_NAMESPACE) stop(j, "%s is no namespace", described(j, space));
        set_variable(j, space.scope, target->value, v);
    } else {
        const Value *items = items_of(j, v, &n);
        for (const Node *t = target->a; t; t = t->next, i++) {
            if (i < n) assign(j, t, items[i]);
        }
        if (i != n) stop(j, "%zu values for %zu variables", n, i);
    }
}

/* for a in b if e: c, else d; a scope for each item. */
static void loop_over(Jinja *j, const Node *n, Value over, size_t depth)
{
    Loop *loop = grab(j, 1, sizeof *loop);
    Values kept = { 0 };
    Value self = { .kind = A_LOOP, .loop = loop }, name = words(j, "loop");
    *loop = (Loop){ n, j->scope, NULL, 0, 0, depth };
    loop->items = items_of(j, over, &loop->n);
    for (size_t i = 0; n->e && i < loop->n; i++) {
        j->scope = new_scope(j, loop->scope);
        assign(j, n->a, loop->items[i]);
        if (truth(run(j, n->e))) add_item(j, &kept, loop->items[i]);
    }
    if (n->e) loop->items = kept.at, loop->n = kept.n;
    for (; loop->i < loop->n && j->leaving != BREAK; loop->i++) {
        j->scope = new_scope(j, loop->scope);
        set_variable(j, j->scope, name, self);
        assign(j, n->a, loop->items[loop->i]);
        j->leaving = 0;
        run_all(j, n->c);
    }
    j->leaving = 0;
    j->scope = loop->scope;
    if (loop->n == 0) run_all(j, n->d);
}

static Value run_for(Jinja *j, const Node *n)
{
    loop_over(j, n, run(j, n->b), 1);
    return none;
}

static Value call(Jinja *j, Value f, Arguments a)
{
    Builder text = { 0 }, *out = j->out;
    Scope *scope = j->scope;
    if (f.kind == A_MACRO) return call_macro(j, f.macro, a);
    if (f.kind == A_FUNCTION) return call_builtin(j, f.bound->row, f.bound->self, a);
    if (f.kind != A_LOOP || a.n != 1) stop(j, "a call of %s, no function", described(j, f));
    j->out = &text, j->scope = f.loop->scope; /* a recursive loop */
    loop_over(j, f.loop->node, a.at[0], f.loop->depth + 1);
    j->out = out, j->scope = scope;
    return string(text.at, text.n);
}

static Value run_call(Jinja *j, const Node *n)
{
    Value f = run(j, n->a);
    return call(j, f, arguments_of(j, n->b, n->c));
}

/* a | row(b, c), a is row(b, c); with d: a is not row */
static Value run_builtin(Jinja *j, const Node *n)
{
    Value self = run(j, n->a);
    if (!n->row) stop(j, "%s is no filter or test that is known", bytes_of(j, n->value));
    Value v = call_builtin(j, n->row, self, arguments_of(j, n->b, n->c));
    return n->d ? boolean(!truth(v)) : v;
}

static Value run_set(Jinja *j, const Node *n)
{
    assign(j, n->a, run(j, n->b));
    return none;
}

/* if a: b, else c, which is such a node too */
static Value run_if(Jinja *j, const Node *n)
{
    while (n && n->a && !truth(run(j, n->a))) n = n->c;
    if (n) run_all(j, n->b);
    return none;
}

static Value run_leave(Jinja *j, const Node *n)
{
    j->leaving = (int)n->value.integer;
    return none;
}

static Value run_generation(Jinja *j, const Node *n)
{
    Scope *outer = j->scope;
    j->scope = new_scope(j, outer);
    run_all(j, n->b);
    j->scope = outer;
    return none;
}

static Value run_macro(Jinja *j, const Node *n)
{
    Macro *m = grab(j, 1, sizeof *m);
    *m = (Macro){ n, j->scope };
    Value v = { .kind = A_MACRO, .macro = m };
    if (n->value.n) set_variable(j, j->scope, n->value, v);
    return v;
}

/* {% call(c) a(b) %}: the macro a gets the block as its argument caller. */
static Value run_call_block(Jinja *j, const Node *n)
{
    Value f = run(j, n->b->a), block = run_macro(j, n->a);
    Node constant = { .run = run_constant, .value = block };
    Node caller = { .value = words(j, "caller"), .a = &constant, .next = n->b->c };
    add_string(j, j->out, text_of(j, call(j, f, arguments_of(j, n->b->b, &caller))));
    return none;
}

/* ==== Templates: the parser ======================================================================
 * Reads words (names, literals, signs) inside of tags, and makes nodes. White space at the edges of
 * tags goes as trim_blocks and lstrip_blocks say. JSON is read as an expression.
 */

/* Whether the source has ASCII text at a place. */
static int source_has(const Jinja *j, size_t at, const char *text)
{
    while (*text && at < j->n && code(j->source[at]) == (unsigned char)*text) text++, at++;
    return !*text;
}

static Cell read_hex(Jinja *j, size_t at, int digits)
{
    Cell value = 0;
    for (int i = 0; i < digits; i++) {
        Cell c = at + (size_t)i < j->n ? code(j->source[at + (size_t)i]) : 0, low = (c | 32) - 'a';
        if (!is_digit(c) && low > 5) stop(j, "an escape without its %d digits", digits);
        value = value << 4 | (is_digit(c) ? c - '0' : low + 10);
    }
    return value;
}

/* The value of a string literal between its quotes. */
static Value unescaped(Jinja *j, size_t from, size_t to)
{
    static const char letters[] = "n\nt\tr\r\\\\''\"\"b\bf\fa\av\v//"; /* the last in JSON alone */
    Cell *text = grab(j, to - from, sizeof *text);
    size_t n = 0;
    while (from < to) {
        Cell c = code(j->source[from++]), next = from < to ? code(j->source[from]) : 0;
        int digits = next == 'x' ? 2 : next == 'u' ? 4 : next == 'U' ? 8 : 0;
        size_t k = 0;
        while (letters[k] && (Cell)letters[k] != next) k += 2;
        if (c == '\\' && digits) {
            c = read_hex(j, ++from, digits), from += (size_t)digits;
            /* the second half of a character of UTF-16 */
            int low = c >> 10 == 0xDC00 >> 10 && n > 0 && code(text[n - 1]) >> 10 == 0xD800 >> 10;
            if (low) c = 0x10000 + ((code(text[--n]) & 0x3FF) << 10) + (c & 0x3FF);
            if (c > 0x10FFFF) c = 0xFFFD;
        } else if (c == '\\' && next == '\n') {
            from++;
            continue;
        } else if (c == '\\' && letters[k] && (next != '/' || !*j->closer)) {
            c = (Cell)letters[k + 1], from++;
        }
        text[n++] = c | j->whose;
    }
    for (size_t i = 0; i < n; i++) { /* a half alone is no character */
        if (code(text[i]) >> 11 == 0xD800 >> 11) text[i] = 0xFFFD | j->whose;
    }
    return string(text, n);
}

/* Goes to the next word inside of a tag. */
static void next_word(Jinja *j)
{
    static const char *const signs[] = { "**", "//", "==", "!=", "<=", ">=" };
    while (j->at < j->n && is_white(j->source[j->at])) j->at++;
    size_t from = j->where = j->at, len = 1;
    size_t sign = source_has(j, from, "-") || source_has(j, from, "+");
    if (!j->brackets && source_has(j, from + sign * !!*j->closer, j->closer)) {
        j->word = TAG_END;
        j->text = string(j->source + from, sign);
        return;
    }
    if (from == j->n) stop(j, *j->closer ? "the tag has no end" : "JSON that has no end");
    Cell c = code(j->source[from]);
    if (c == '"' || c == '\'') {
        while (from + len < j->n && code(j->source[from + len]) != c) {
            len += code(j->source[from + len]) == '\\' ? 2 : 1;
        }
        if (from + len >= j->n) stop(j, "the string has no end");
        j->word = LITERAL;
        j->text = unescaped(j, from + 1, from + len++);
    } else if (is_digit(c)) {
        j->word = LITERAL;
        j->text = read_number_text(j->source + from, j->n - from, &len);
    } else {
        j->word = is_word_char(c) ? WORD : SIGN;
        while (j->word == WORD && from + len < j->n && is_word_char(j->source[from + len])) len++;
        for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
            if (source_has(j, from, signs[i])) len = 2;
        }
        j->text = string(j->source + from, len);
    }
    j->at = from + len;
}

static int at_word(const Jinja *j, const char *word)
{
    return (j->word == WORD || j->word == SIGN) && is_text(j->text, word);
}

/* Goes on if the word is this one. Inside of brackets a tag doesn't end. */
static int accept(Jinja *j, const char *word)
{
    if (!at_word(j, word)) return 0;
    if (strchr("([{", *word)) j->brackets++;
    if (strchr(")]}", *word)) j->brackets--;
    next_word(j);
    return 1;
}

/* What the word is, for messages. */
static const char *word_here(Jinja *j)
{
    if (j->word == TAG_END) return "the end of the tag";
    return j->word == LITERAL || j->text.n > 60 ? "a literal" : bytes_of(j, j->text);
}

static void expect(Jinja *j, const char *word)
{
    if (!accept(j, word)) stop(j, "%s, expected %s", word_here(j), word);
}

static Value expect_name(Jinja *j)
{
    Value name = j->text;
    if (j->word != WORD) stop(j, "%s, expected a name", word_here(j));
    next_word(j);
    return name;
}

static Node *new_node(Jinja *j, Value (*runs)(Jinja *, const Node *), Node *a, Node *b)
{
    Node *n = grab(j, 1, sizeof *n);
    n->run = runs, n->where = j->where, n->a = a, n->b = b;
    return n;
}

static Node *new_constant(Jinja *j, Value v)
{
    Node *n = new_node(j, run_constant, NULL, NULL);
    n->value = v;
    return n;
}

static Node *parse_expression(Jinja *j);
static Node *parse_binary(Jinja *j, int level);

/* Expressions up to a closing sign, with commas between them; of a mapping, pairs. */
static Node *parse_items(Jinja *j, const char *end)
{
    Node *first = NULL, **last = &first;
    while (!accept(j, end)) {
        *last = parse_expression(j);
        if (*end == '}') {
            expect(j, ":");
            *last = new_node(j, NULL, *last, parse_expression(j));
        }
        last = &(*last)->next;
        if (!at_word(j, end)) expect(j, ",");
    }
    return first;
}

static Node *parse_primary(Jinja *j)
{
    static const struct {
        const char *name;
        Value value;
    } constants[] = { { "true", { .kind = A_BOOL, .integer = 1 } },
                      { "True", { .kind = A_BOOL, .integer = 1 } },
                      { "false", { .kind = A_BOOL } },
                      { "False", { .kind = A_BOOL } },
                      { "none", { .kind = A_NONE } },
                      { "None", { .kind = A_NONE } },
                      { "null", { .kind = A_NONE } } }; /* in JSON alone */
    Value v = j->text;
    if (j->word == LITERAL) {
        next_word(j);
        for (; *j->closer && j->word == LITERAL && j->text.kind == A_STRING; next_word(j)) {
            if (v.kind != A_STRING) break;
            v = joined(j, v, j->text, 1);
        }
        return new_constant(j, v);
    }
    if (accept(j, "[")) return new_node(j, run_list, parse_items(j, "]"), NULL);
    if (accept(j, "{")) return new_node(j, run_mapping, parse_items(j, "}"), NULL);
    if (accept(j, "(")) { /* (a), or a list: (), (a,), (a, b) */
        Node *first = at_word(j, ")") ? NULL : parse_expression(j);
        if (first && accept(j, ")")) return first;
        if (first) expect(j, ",");
        Node *rest = parse_items(j, ")");
        if (first) first->next = rest;
        return new_node(j, run_list, first, NULL);
    }
    if (j->word != WORD) stop(j, "%s, expected a value", word_here(j));
    for (size_t i = 0; i < sizeof constants / sizeof *constants - !!*j->closer; i++) {
        if (accept(j, constants[i].name)) return new_constant(j, constants[i].value);
    }
    Node *n = new_node(j, run_name, NULL, NULL);
    n->value = expect_name(j);
    n->row = find_builtin(functions, n->value);
    return n;
}

/* Arguments behind an opening parenthesis: b those by place, c those by name. */
static void parse_arguments(Jinja *j, Node *n)
{
    Node **place = &n->b, **named = &n->c;
    while (!accept(j, ")")) {
        size_t at = j->at;
        while (at < j->n && is_white(j->source[at])) at++;
        if (j->word == WORD && source_has(j, at, "=") && !source_has(j, at, "==")) {
            Value name = expect_name(j);
            expect(j, "=");
            *named = new_node(j, NULL, parse_expression(j), NULL);
            (*named)->value = name;
            named = &(*named)->next;
        } else {
            int spread = accept(j, "*");
            *place = parse_expression(j);
            if (spread) *place = new_node(j, run_spread, *place, NULL);
            place = &(*place)->next;
        }
        if (!at_word(j, ")")) expect(j, ",");
    }
}

/* [b], [b:c:d] behind a value */
static Node *parse_brackets(Jinja *j, Node *of)
{
    Node *n = new_node(j, run_item, of, NULL), **ends[] = { &n->b, &n->c, &n->d };
    for (int i = 0; i < 3; i++) {
        if (!at_word(j, ":") && !at_word(j, "]")) *ends[i] = parse_expression(j);
        if (!accept(j, ":")) break;
        n->run = run_slice;
    }
    expect(j, "]");
    if (n->run == run_item && !n->b) stop(j, "[] has no item");
    return n;
}

/* .name [index] (arguments) behind a value; and with filters | filter(arguments), is test */
static Node *parse_postfix(Jinja *j, Node *n, int with_filters)
{
    for (;;) {
        Node *of = n;
        if (accept(j, "(")) {
            n = new_node(j, run_call, of, NULL);
            parse_arguments(j, n);
        } else if (accept(j, ".")) {
            n = new_node(j, run_item, of, NULL);
            n->value = j->text;
            j->word == LITERAL && j->text.kind == A_INTEGER ? next_word(j) : (void)expect_name(j);
        } else if (accept(j, "[")) {
            n = parse_brackets(j, of);
        } else if (with_filters && accept(j, "|")) {
            n = new_node(j, run_builtin, of, NULL);
            n->value = expect_name(j);
            n->row = find_builtin(filters, n->value);
            if (accept(j, "(")) parse_arguments(j, n);
        } else if (with_filters && accept(j, "is")) {
            n = new_node(j, run_builtin, of, NULL);
            n->d = accept(j, "not") ? n : NULL;
            n->value = expect_name(j);
            n->row = find_builtin(tests, n->value);
            const char *p = n->row ? n->row->parameters : "";
            if (accept(j, "("))
                parse_arguments(j, n);
            else if (*p)
                n->b = parse_postfix(j, parse_primary(j), 0); /* without parentheses */
        } else {
            return n;
        }
    }
}

static Node *parse_unary(Jinja *j, int with_filters)
{
    Node *n;
    enter(j);
    if (accept(j, "-"))
        n = new_node(j, run_negate, parse_unary(j, 0), NULL);
    else
        n = accept(j, "+") ? parse_unary(j, 0) : parse_postfix(j, parse_primary(j), 0);
    if (with_filters) n = parse_postfix(j, n, 1);
    j->depth--;
    return n;
}

/* Operators with two sides, from the loosest to the tightest level; `not` has level 3. To add one:
 * a row; `how` is what its function knows it by. */
static const struct {
    const char *text;
    int level, how;
    Value (*run)(Jinja *j, const Node *n);
} operators[] = {
    { "or", 1, 0, run_or },          { "and", 2, 0, run_and },
    { "==", 4, '=', run_compare },   { "!=", 4, '!', run_compare },
    { "<", 4, '<', run_compare },    { ">", 4, '>', run_compare },
    { "<=", 4, 'l', run_compare },   { ">=", 4, 'g', run_compare },
    { "in", 4, 'i', run_compare },   { "not", 4, 'n', run_compare }, /* not in */
    { "+", 5, '+', run_arithmetic }, { "-", 5, '-', run_arithmetic },
    { "~", 6, 0, run_join },         { "*", 7, '*', run_arithmetic },
    { "/", 7, '/', run_arithmetic }, { "//", 7, 'f', run_arithmetic },
    { "%", 7, '%', run_arithmetic }, { "**", 8, '^', run_arithmetic },
};

/* A value, or an operator of this level or a tighter one with its sides. */
static Node *parse_binary(Jinja *j, int level)
{
    size_t n = sizeof operators / sizeof *operators;
    Node *left, *before = NULL; /* the comparison in front: a < b < c shares its b */
    enter(j);
    if (level <= 3 && accept(j, "not"))
        left = new_node(j, run_not, parse_binary(j, 3), NULL);
    else
        left = parse_unary(j, 1);
    for (size_t i = 0; i < n; i++) {
        if (operators[i].level < level || !at_word(j, operators[i].text)) continue;
        accept(j, operators[i].text);
        if (operators[i].how == 'n') expect(j, "in");
        int chained = before && operators[i].level == 4;
        Node *node = new_node(j, operators[i].run, chained ? before->b : left, NULL);
        node->value = integer(operators[i].how);
        node->b = parse_binary(j, operators[i].level + 1);
        left = chained ? new_node(j, run_and, left, node) : node;
        before = operators[i].level == 4 ? node : NULL;
        i = (size_t)-1; /* look for the next one */
    }
    j->depth--;
    return left;
}

static Node *parse_or(Jinja *j)
{
    return parse_binary(j, 1);
}

/* A value of JSON: of what Jinja has, only literals, lists and mappings. */
static Node *parse_json(Jinja *j)
{
    static const char *const names[] = { "true", "false", "null" };
    int known = at_word(j, "[") || at_word(j, "{") || at_word(j, "-");
    for (int i = 0; i < 3; i++) known |= at_word(j, names[i]);
    known |= j->word == LITERAL && !source_has(j, j->where, "'");
    if (!known) stop(j, "%s, expected a value of JSON", word_here(j));
    enter(j);
    Node *n = accept(j, "-") ? new_node(j, run_negate, parse_primary(j), NULL) : parse_primary(j);
    j->depth--;
    return n;
}

static Node *parse_expression(Jinja *j)
{
    if (!*j->closer) return parse_json(j);
    Node *n = parse_or(j);
    while (accept(j, "if")) {
        n = new_node(j, run_choice, parse_or(j), n);
        if (accept(j, "else")) n->c = parse_expression(j);
    }
    return n;
}

/* One of what parse reads, or a list of them without parentheses. */
static Node *parse_tuple(Jinja *j, Node *(*parse)(Jinja *j))
{
    Node *first = parse(j), **last = &first->next;
    if (!at_word(j, ",")) return first;
    while (accept(j, ",") && j->word != TAG_END && !at_word(j, "in") && !at_word(j, "=")) {
        *last = parse(j);
        last = &(*last)->next;
    }
    return new_node(j, run_list, first, NULL);
}

/* What a value is given to: a name, a member of a namespace, or a list of such. */
static Node *parse_target(Jinja *j)
{
    if (accept(j, "(")) {
        Node *n = parse_tuple(j, parse_target);
        expect(j, ")");
        return n;
    }
    Node *n = new_node(j, run_name, NULL, NULL);
    n->value = expect_name(j);
    if (!accept(j, ".")) return n;
    n = new_node(j, run_item, n, NULL);
    n->value = expect_name(j);
    return n;
}

/* Behind the end of a tag: white space goes as its sign says; the line's end behind a statement. */
static void end_tag(Jinja *j, int statement)
{
    if (j->word != TAG_END) stop(j, "%s, expected the end of the tag", word_here(j));
    Cell sign = j->text.n ? code(*j->text.text) : 0;
    j->at += j->text.n + strlen(j->closer);
    while (sign == '-' && j->at < j->n && is_white(j->source[j->at])) j->at++;
    if (statement && !sign) j->at += source_has(j, j->at, "\n");
}

static Node *parse_body(Jinja *j, const char *ends);

/* The statements up to a tag of one of these names, in front of which the parser stands then; if
 * there is but one name, behind it. */
static Node *parse_block(Jinja *j, const char *ends)
{
    end_tag(j, 1);
    Node *body = parse_body(j, ends);
    if (!strchr(ends, ' ')) next_word(j);
    return body;
}

static Node *parse_for(Jinja *j)
{
    Node *n = new_node(j, run_for, NULL, NULL);
    n->a = parse_tuple(j, parse_target);
    expect(j, "in");
    n->b = parse_tuple(j, parse_or);
    if (accept(j, "if")) n->e = parse_expression(j);
    accept(j, "recursive");
    n->c = parse_block(j, "else endfor");
    if (accept(j, "else"))
        n->d = parse_block(j, "endfor");
    else
        expect(j, "endfor");
    return n;
}

static Node *parse_if(Jinja *j)
{
    Node *first = new_node(j, run_if, parse_tuple(j, parse_expression), NULL), *n = first;
    for (;;) {
        n->b = parse_block(j, "elif else endif");
        if (accept(j, "endif")) return first;
        int more = accept(j, "elif");
        if (!more) expect(j, "else");
        n = n->c = new_node(j, run_if, more ? parse_tuple(j, parse_expression) : NULL, NULL);
        if (more) continue;
        n->b = parse_block(j, "endif");
        return first;
    }
}

/* set a = b, or a block, whose text filters may change */
static Node *parse_set(Jinja *j)
{
    Node *target = parse_tuple(j, parse_target), *text;
    if (accept(j, "=")) return new_node(j, run_set, target, parse_tuple(j, parse_expression));
    text = new_node(j, run_captured, NULL, NULL);
    Node *n = new_node(j, run_set, target, parse_postfix(j, text, 1));
    text->a = parse_block(j, "endset");
    return n;
}

/* Behind the opening parenthesis: names with their defaults. */
static Node *parse_parameters(Jinja *j)
{
    Node *first = NULL, **last = &first;
    while (!accept(j, ")")) {
        Node *p = *last = new_node(j, NULL, NULL, NULL);
        last = &p->next;
        p->value = expect_name(j);
        if (accept(j, "=")) p->a = parse_expression(j);
        if (!at_word(j, ")")) expect(j, ",");
    }
    return first;
}

static Node *parse_macro(Jinja *j)
{
    Node *n = new_node(j, run_macro, NULL, NULL);
    n->value = expect_name(j);
    expect(j, "(");
    n->a = parse_parameters(j);
    n->b = parse_block(j, "endmacro");
    return n;
}

static Node *parse_call(Jinja *j)
{
    Node *block = new_node(j, run_macro, NULL, NULL);
    if (accept(j, "(")) block->a = parse_parameters(j);
    Node *called = parse_unary(j, 0);
    if (called->run != run_call) stop(j, "a call block that calls nothing");
    block->b = parse_block(j, "endcall");
    return new_node(j, run_call_block, block, called);
}

static Node *parse_filter(Jinja *j)
{
    Node *text = new_node(j, run_captured, NULL, NULL), *n = new_node(j, run_builtin, text, NULL);
    n->value = expect_name(j);
    n->row = find_builtin(filters, n->value);
    if (accept(j, "(")) parse_arguments(j, n);
    n = new_node(j, run_print, parse_postfix(j, n, 1), NULL);
    text->a = parse_block(j, "endfilter");
    return n;
}

static Node *parse_generation(Jinja *j)
{
    return new_node(j, run_generation, NULL, parse_block(j, "endgeneration"));
}

static Node *parse_break(Jinja *j)
{
    Node *n = new_node(j, run_leave, NULL, NULL);
    n->value = integer(BREAK);
    return n;
}

static Node *parse_continue(Jinja *j)
{
    Node *n = new_node(j, run_leave, NULL, NULL);
    n->value = integer(CONTINUE);
    return n;
}

/* To add one: a function that reads what stands behind the name up to the end of the statement's
 * last tag, and a row. */
static const struct {
    const char *name;
    Node *(*parse)(Jinja *j);
} statements[] = {
    { "break", parse_break },   { "call", parse_call },
    { "filter", parse_filter }, { "continue", parse_continue },
    { "for", parse_for },       { "generation", parse_generation },
    { "if", parse_if },         { "macro", parse_macro },
    { "set", parse_set },
};

static Node *parse_statement(Jinja *j)
{
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!accept(j, statements[i].name)) continue;
        Node *n = statements[i].parse(j);
        end_tag(j, 1);
        return n;
    }
    stop(j, "%s is no statement that is known here", word_here(j));
}

/* The text up to a tag that opens at `to`, less the white space that goes, NULL if nothing is left.
 * Goes behind the opening. */
static Node *parse_text(Jinja *j, size_t to)
{
    size_t from = j->at, end = to;
    int value = source_has(j, to, "{{"), minus = source_has(j, to + 2, "-");
    int plus = !value && source_has(j, to + 2, "+");
    j->at = to + 2 + (size_t)(minus || plus);
    if (to < j->n && (minus || (!plus && !value))) {
        while (end > from && is_white(j->source[end - 1]) &&
               (minus || code(j->source[end - 1]) != '\n')) {
            end--;
        }
        if (!minus && end > 0 && code(j->source[end - 1]) != '\n') end = to; /* not all of a line */
    }
    if (end == from) return NULL;
    Node *n = new_constant(j, string(j->source + from, end - from));
    n->run = run_text;
    return n;
}

/* Behind {#: to what follows the comment. */
static void skip_comment(Jinja *j)
{
    size_t from = j->at;
    while (j->at < j->n && !source_has(j, j->at, "#}")) j->at++;
    j->where = from;
    if (j->at == j->n) stop(j, "a comment that has no end");
    Cell sign = j->at > from ? code(j->source[j->at - 1]) : 0;
    j->at -= sign == '-' || sign == '+';
    j->closer = "#}", j->word = TAG_END;
    j->text = string(j->source + j->at, sign == '-' || sign == '+');
    end_tag(j, 1);
}

/* Statements up to a tag that begins with one of the words of ends (with spaces between them), in
 * front of which the parser stands then; without ends, up to the end. */
static Node *parse_body(Jinja *j, const char *ends)
{
    Node *first = NULL, **last = &first;
    enter(j);
    for (size_t to = j->at;; to = j->at) {
        while (to < j->n && !source_has(j, to, "{{") && !source_has(j, to, "{%") &&
               !source_has(j, to, "{#")) {
            to++;
        }
        if ((*last = parse_text(j, to))) last = &(*last)->next;
        if (to == j->n && *ends) stop(j, "the template ends, expected %s", ends);
        if (to == j->n) break;
        if (source_has(j, to, "{#")) {
            skip_comment(j);
            continue;
        }
        int value = source_has(j, to, "{{");
        j->closer = value ? "}}" : "%}";
        j->brackets = 0;
        next_word(j);
        const char *end = !value && j->word == WORD ? strstr(ends, bytes_of(j, j->text)) : NULL;
        if (end && strcspn(end, " ") == j->text.n && (end == ends || end[-1] == ' ')) break;
        *last = value ? new_node(j, run_print, parse_tuple(j, parse_expression), NULL)
                      : parse_statement(j);
        if (value) end_tag(j, 0);
        last = &(*last)->next;
    }
    j->depth--;
    return first;
}

/* ==== Templates: making and rendering ========================================================= */

void tokenizer_template_free(tokenizer_template *t)
{
    if (!t) return;
    free_chunks(&t->parser);
    free(t);
}

/* Reads the source: line ends become \n, and the last one goes, as in Jinja. */
static int parse_template(tokenizer_template *t, const char *source, size_t len)
{
    Jinja *j = &t->parser;
    if (setjmp(j->failed)) return -1;
    if (len > MAX_TEMPLATE) stop(j, "%zu bytes, at most %d", len, MAX_TEMPLATE);
    Value text = read_text(j, source, len, TEMPLATES);
    Cell *to = grab(j, text.n, sizeof *to);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        Cell c = code(text.text[i]), before = i ? code(text.text[i - 1]) : 0;
        if (c == '\n' && before == '\r') continue;
        to[n++] = c == '\r' ? '\n' | TEMPLATES : text.text[i];
    }
    j->source = to, j->n = n - (n > 0 && code(to[n - 1]) == '\n');
    t->body = parse_body(j, "");
    return 0;
}

tokenizer_template *tokenizer_template_new(const char *source, size_t len, char *error, size_t size)
{
    tokenizer_template *t = calloc(1, sizeof *t);
    if (!t) {
        set_error(error, size, "out of memory for a chat template");
        return NULL;
    }
    t->parser = (Jinja){ .error = error, .error_size = size, .whose = TEMPLATES };
    t->parser.what = "the chat template";
    t->parser.most_memory = MAX_RUN_MEMORY, t->parser.most_steps = MAX_RUN_STEPS;
    if (!parse_template(t, source, len)) return t;
    tokenizer_template_free(t);
    return NULL;
}

/* Sets the variables that a JSON object has. */
static void define(Jinja *j, const tokenizer_variables *v)
{
    const Cell *source = j->source;
    const char *what = j->what;
    size_t n = j->n;
    Value text = read_text(j, v->json.data, v->json.len, 0);
    j->what = "the variables of the chat template";
    j->source = text.text, j->n = text.n, j->at = 0;
    j->closer = "", j->brackets = 1, j->whose = v->trusted ? TEMPLATES : 0;
    next_word(j);
    j->brackets = 0;
    Node *object = parse_expression(j);
    if (object->run != run_mapping || j->at < j->n) stop(j, "the variables are no JSON object");
    Value all = run(j, object);
    j->what = what, j->source = source, j->n = n;
    for (size_t i = 0; i < all.n; i++) {
        set_variable(j, j->scope, want_string(j, all.items[2 * i]), all.items[2 * i + 1]);
    }
}

/* The characters as bytes and their marks. */
static void write_marked(Jinja *j, const Builder *from, tokenizer_marked *to)
{
    char character[4];
    size_t len = 0;
    for (size_t i = 0; i < from->n; i++) len += write_char(character, code(from->at[i]));
    to->text = malloc(2 * len + 1);
    if (!to->text) stop(j, "out of memory for a text of %zu bytes", len);
    to->marks = (unsigned char *)to->text + len + 1;
    for (size_t i = 0; i < from->n; i++) {
        size_t n = write_char(to->text + to->len, code(from->at[i]));
        memset(to->marks + to->len, from->at[i] != code(from->at[i]), n);
        to->len += n;
    }
    to->text[len] = 0;
}

int tokenizer_render(const tokenizer_template *t, const tokenizer_variables *variables, int n,
                     int64_t now, tokenizer_marked *to, char *error, size_t size)
{
    Jinja *j = calloc(1, sizeof *j);
    *to = (tokenizer_marked){ NULL, NULL, 0 };
    if (!j) {
        set_error(error, size, "out of memory to render a chat template");
        return -1;
    }
    *j = (Jinja){ .source = t->parser.source, .n = t->parser.n, .now = now };
    j->what = t->parser.what;
    j->error = error, j->error_size = size;
    j->most_memory = MAX_RUN_MEMORY, j->most_steps = MAX_RUN_STEPS;
    for (int i = 0; i < n; i++) {
        j->most_memory += 24 * variables[i].json.len;
        j->most_steps += 2 * variables[i].json.len;
    }
    int failed = setjmp(j->failed);
    if (!failed) {
        j->out = grab(j, 1, sizeof *j->out);
        j->scope = new_scope(j, NULL);
        set_variable(j, j->scope, words(j, "self"), do_mapping(j, none, &(Arguments){ .how = 1 }));
        for (int i = 0; i < n; i++) define(j, &variables[i]);
        run_all(j, t->body);
        write_marked(j, j->out, to);
    }
    free_chunks(j);
    free(j);
    return failed ? -1 : 0;
}
