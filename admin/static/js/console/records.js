// The lists of records are the server's; this fills their frame.
import { broken, openShell } from "../shell.js";

openShell("console").catch(broken);
