import { parentPort } from "node:worker_threads";

import "./platform-node.js";
import { serve } from "./service.js";

parentPort.on("message", serve(parentPort));
